//! The audit log: one line per decision, without secrets.
//!
//! ```text
//! time=1795188000.123 event=answer terminal="till-1" uid=04A1B2C3D4E5F6 mode="card-locked release" counter=7 outcome=granted ms=0.8
//! ```
//!
//! It names terminal, card, mode, counter and outcome. UIDs are personal data: keep the log
//! accordingly. Whatever comes from outside is escaped, so that nobody writes lines of their own.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use desfire_ev1::split::{Challenge, Freshness};

use super::problem::Problem;

/// Where the lines go.
pub struct Audit(Mutex<Box<dyn Write + Send>>);

impl Audit {
    /// Into `out`, line by line.
    #[must_use]
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(out)))
    }

    /// Writes one line. No answer leaves without: if this fails, there is none.
    pub(super) fn line(
        &self,
        event: &str,
        challenge: Option<&Challenge>,
        outcome: Result<&str, &Problem>,
        took: Duration,
    ) -> Result<(), Problem> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut line = format!(
            "time={}.{:03} event={event}",
            now.as_secs(),
            now.subsec_millis()
        );
        // Writing into a string does not fail.
        if let Some(challenge) = challenge {
            let intent = &challenge.intent;
            let _ = write!(line, " terminal=\"{}\"", intent.terminal);
            if let Some(uid) = intent.uid {
                let _ = write!(line, " uid={uid}");
            }
            let _ = write!(
                line,
                " mode=\"{}\" aid={} key={}",
                intent.mode, challenge.aid, intent.key_no
            );
            if let Freshness::Counter(counter) = intent.freshness {
                let _ = write!(line, " counter={counter}");
            }
        }
        let _ = match outcome {
            Ok(outcome) => write!(line, " outcome={outcome}"),
            Err(problem) => write!(line, " outcome=refused why={}", problem.word),
        };
        if let Err(Problem {
            inside: Some(inside),
            ..
        }) = outcome
        {
            let _ = write!(line, " inside=\"{}\"", inside.escape_debug());
        }
        let _ = writeln!(line, " ms={:.1}", took.as_secs_f64() * 1000.0);
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(line.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| Problem::internal(format!("the audit log: {error}")))
    }
}
