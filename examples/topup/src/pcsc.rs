//! A card on a PC/SC reader at the phone's place.

use desfire_ev1::pcsc::{PcscCard, PcscContext, PcscError};
use desfire_ev1::wire::Uid;
use desfire_ev1::{Link, LinkFormat, Transport};

use crate::phone::Tapped;

/// How long to wait for a card.
const WAIT: std::time::Duration = std::time::Duration::from_secs(20);

/// A reader, and the card on it.
pub struct ReaderCard {
    context: PcscContext,
    name: Option<String>,
    card: Option<PcscCard>,
}

impl ReaderCard {
    /// On the first reader whose name contains `name`. The card is waited for when it is needed.
    ///
    /// # Errors
    /// There is no service.
    pub fn wait(name: Option<&str>) -> Result<Self, PcscError> {
        Ok(Self {
            context: PcscContext::new()?,
            name: name.map(ToOwned::to_owned),
            card: None,
        })
    }

    fn card(&mut self) -> Result<&mut PcscCard, PcscError> {
        self.card.as_mut().ok_or(PcscError::CardRemoved)
    }
}

impl Link for ReaderCard {
    type Error = PcscError;

    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for ReaderCard {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, PcscError> {
        tokio::task::block_in_place(|| self.card()?.exchange(command, reply))
    }
}

impl Tapped for ReaderCard {
    /// Connects anew: letting go of the card resets it.
    fn activate(&mut self) -> Result<Uid, PcscError> {
        tokio::task::block_in_place(|| {
            self.card = None;
            let mut card = self.context.wait_for_card(self.name.as_deref(), WAIT)?;
            let uid = card.uid()?;
            self.card = Some(card);
            uid.try_into().map(Uid).map_err(|_| PcscError::EmptyReply)
        })
    }

    fn keep_alive(&mut self) -> Result<(), PcscError> {
        tokio::task::block_in_place(|| self.card()?.keep_alive())
    }
}
