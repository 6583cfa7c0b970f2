//! How many conversations there may be, and who may have how many.
//!
//! For: fair refusal before memory runs out. A connection takes a place of the server and one of its
//! peer's address; a conversation one of its account. Places come back by themselves when what holds
//! them is dropped.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once, phones and browsers.
    pub connections: usize,
    /// Connections at once from one address, or one /64 of IPv6. Many phones may share one address of
    /// their mobile network: this is against a flood, and not small. Behind a proxy all have the proxy's
    /// address: then it has to be no less than `connections`, and the proxy has to limit.
    pub per_address: usize,
    /// Conversations at once of one account.
    pub per_account: usize,
}

/// Counts of something by its owner.
pub(crate) struct Counts<K>(Mutex<HashMap<K, usize>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Counts<K> {
    /// A place of this owner's, if there are fewer than `limit`.
    pub(crate) fn enter(self: &Arc<Self>, key: K, limit: usize) -> Option<Counted<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Counted {
            counts: self.clone(),
            key,
        })
    }
}

/// A place that is taken.
pub(crate) struct Counted<K: Eq + Hash> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Whose share a connection is counted to: a line of IPv6 has a whole /64 of addresses, and can take a new
/// one for each connection.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// All places.
pub struct Places {
    limits: Limits,
    connections: Arc<Semaphore>,
    addresses: Arc<Counts<IpAddr>>,
    accounts: Arc<Counts<Arc<str>>>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The server has no more.
    Server,
    /// This address has had its share.
    Address,
}

/// A connection's place.
pub struct Place {
    _server: OwnedSemaphorePermit,
    _address: Counted<IpAddr>,
}

/// A conversation's place.
pub struct AccountPlace {
    _account: Counted<Arc<str>>,
}

impl Places {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            connections: Arc::new(Semaphore::new(limits.connections)),
            addresses: Arc::default(),
            accounts: Arc::default(),
        }
    }

    /// A place for a connection.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(&self, peer: IpAddr) -> Result<Place, Full> {
        let address = self.addresses.enter(network(peer), self.limits.per_address);
        let address = address.ok_or(Full::Address)?;
        let server = self.connections.clone().try_acquire_owned();
        Ok(Place {
            _server: server.map_err(|_| Full::Server)?,
            _address: address,
        })
    }

    /// A place for a conversation of an account, if it has one left.
    pub fn enter_account(&self, account: &Arc<str>) -> Option<AccountPlace> {
        let account = self
            .accounts
            .enter(account.clone(), self.limits.per_account);
        account.map(|account| AccountPlace { _account: account })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_line_of_ipv6_has_one_share_and_a_mapped_address_is_the_ipv4_one() {
        let places = Places::new(Limits {
            connections: 10,
            per_address: 1,
            per_account: 1,
        });
        let enter = |text: &str| places.enter(text.parse().unwrap());
        let _first = enter("2001:db8:0:1::1").unwrap();
        assert_eq!(enter("2001:db8:0:1:ffff::2").err(), Some(Full::Address));
        let _other = enter("2001:db8:0:2::1").unwrap();
        let _mapped = enter("::ffff:10.0.0.1").unwrap();
        assert_eq!(enter("10.0.0.1").err(), Some(Full::Address));
        assert!(enter("10.0.0.2").is_ok());
    }

    #[test]
    fn places_are_limited_and_come_back() {
        let places = Places::new(Limits {
            connections: 3,
            per_address: 2,
            per_account: 1,
        });
        let [one, two] = [1, 2].map(|last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
        let first = places.enter(one).unwrap();
        let _second = places.enter(one).unwrap();
        assert_eq!(places.enter(one).err(), Some(Full::Address));
        let _third = places.enter(two).unwrap();
        assert_eq!(places.enter(two).err(), Some(Full::Server));
        drop(first);
        assert!(places.enter(one).is_ok());
        let account = Arc::from("alice");
        let place = places.enter_account(&account).unwrap();
        assert!(places.enter_account(&account).is_none());
        drop(place);
        assert!(places.enter_account(&account).is_some());
        // What nobody holds takes no memory.
        assert!(places.accounts.0.lock().unwrap().is_empty());
    }
}
