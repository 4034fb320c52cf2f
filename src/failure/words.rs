//! The words of a failure: for operators, for callers, for a line of a log.

use std::{error::Error as StdError, fmt};

use super::{Failure, Reader};

/// The words to a caller whose call fails because of the server's own credentials.
pub(crate) const OWN_KEYS_REFUSED: &str = "the server's own credentials are refused upstream; its operator has to act";

impl Failure {
    /// Adds a message for callers, who are told neither names nor projects of the server's keys. The other message is
    /// for operators.
    #[must_use]
    pub fn with_caller_message(mut self, message: impl Into<String>) -> Self {
        let message: String = message.into();
        self.details_mut().caller_message = Some(crate::redact::redact(&message).into());
        self
    }

    /// Returns the upstream's message, redacted, at most 2 KiB; or the message of the layer that refused the call.
    pub fn message(&self) -> &str {
        self.message.text(Reader::Operator)
    }

    /// Returns the message for callers: it names no key and no project of the server's, where a layer has refused the
    /// call, nor the address to which no connection was made. An upstream's message is the same for both.
    pub fn caller_message(&self) -> &str {
        let own = self.details.as_ref().and_then(|details| details.caller_message.as_deref());
        own.unwrap_or_else(|| self.message.text(Reader::Caller))
    }

    /// Calls `read` with the message for callers, which need not be kept for others.
    pub(crate) fn read_caller_message<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        match self.details.as_ref().and_then(|details| details.caller_message.as_deref()) {
            Some(own) => read(own),
            None => self.message.read(Reader::Caller, read),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.kind)?;
        if let Some(status) = self.status {
            write!(f, "{}, ", status.as_u16())?;
        }
        write!(f, "fault: {})", self.fault())?;
        // Upstream messages have several lines; a log entry has one.
        let mut words = self.message().split_ascii_whitespace();
        if let Some(first) = words.next() {
            write!(f, ": {first}")?;
        }
        words.try_for_each(|word| write!(f, " {word}"))
    }
}

/// Returns the words of a chain of errors: the outermost error says which step failed, the innermost one why.
pub(super) fn of_chain(error: &(dyn StdError + 'static)) -> String {
    let mut message = error.to_string();
    let mut link = error.source();
    for _ in 0..8 {
        let Some(error) = link else { break };
        let cause = error.to_string();
        if !message.contains(&cause) {
            message.push_str(": ");
            message.push_str(&cause);
        }
        link = error.source();
    }
    message
}
