//! What can go wrong at the kernel, by kind, with what to do about it.
//!
//! ```
//! use portguard_kernel::{Error, Kind};
//!
//! let busy = Error::new(Kind::HookBusy, "another XDP program is attached to `eth0`").hint("`ip link show dev eth0`");
//! assert_eq!(busy.kind(), Kind::HookBusy);
//! assert_eq!(busy.exit() as u8, 3);
//! ```

use std::error::Error as StdError;
use std::fmt;
use std::io;

use nix::errno::Errno;
use portguard_policy::error::Exit;

/// What a function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of trouble it is. Callers match on it; people read the [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// What was asked for is not there: an interface, a guard, a generation before this one, a stored policy.
    NotThere,
    /// What was asked for cannot be done as it was asked.
    Unsuitable,
    /// The policy needs more than the tables hold.
    TooLarge,
    /// The deadline of a confirmation has passed.
    TooLate,
    /// The interface went away in the middle of it.
    InterfaceGone,
    /// Another program has the hook.
    HookBusy,
    /// The kernel lacks what no guard can do without.
    KernelTooOld,
    /// The kernel has no XDP links (before Linux 5.9).
    NoXdpLinks,
    /// The driver has no XDP of this mode, or not for this MTU.
    Driver,
    /// The BPF file system is not mounted, or this process would not share it with others.
    NotMounted,
    /// A guard is there, and its pins cannot be seen from here.
    PinsHidden,
    /// A directory that others than root may change.
    Untrusted,
    /// Another portguard is at work, or reads what one at a time can read.
    Busy,
    /// Pins or maps of another version of portguard.
    OtherVersion,
    /// The kernel does not let this process do it.
    NotPermitted,
    /// The kernel has no memory left for it.
    NoMemory,
    /// The kernel refused a program, a map or an attachment.
    Refused,
    /// A map or a program does not do what it should: nothing was put in force.
    SelfTest,
    /// A file or a map does not hold what it should.
    Damaged,
    /// The kernel does not tell what it has to be asked for.
    Unanswered,
    /// Anything else that the system refused.
    System,
}

impl Kind {
    /// Whether it is the caller's mistake ([`Exit::Usage`]) or the system's refusal ([`Exit::System`]).
    pub const fn exit(self) -> Exit {
        match self {
            Self::NotThere | Self::Unsuitable | Self::TooLarge | Self::TooLate => Exit::Usage,
            Self::InterfaceGone
            | Self::HookBusy
            | Self::KernelTooOld
            | Self::NoXdpLinks
            | Self::Driver
            | Self::NotMounted
            | Self::PinsHidden
            | Self::Untrusted
            | Self::Busy
            | Self::OtherVersion
            | Self::NotPermitted
            | Self::NoMemory
            | Self::Refused
            | Self::SelfTest
            | Self::Damaged
            | Self::Unanswered
            | Self::System => Exit::System,
        }
    }
}

/// An error with its [`Kind`], what to do about it, and the error below it as its source; `{:#}` prints them all.
#[expect(clippy::error_impl_error, reason = "called as that of std::io is")]
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    /// Lower case, no final period. Without one, the cause speaks for itself.
    message: Option<String>,
    hint: Option<String>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of a kind. The message is in lower case and has no final period.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: Some(message.into()),
            hint: None,
            cause: None,
        }))
    }

    /// Anything that the system refused.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Kind::System, message)
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Names the error below it.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Self>) -> Self {
        self.0.cause = Some(Box::new(cause.into()));
        self
    }

    /// Says what was tried when it happened; the kind and the hint stay.
    #[must_use]
    pub fn context(self, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind: self.0.kind,
            message: Some(what.into()),
            hint: self.0.hint.clone(),
            cause: Some(Box::new(self)),
        }))
    }

    /// What kind of trouble it is.
    pub const fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The exit code that it deserves.
    pub const fn exit(&self) -> Exit {
        self.0.kind.exit()
    }

    /// What to do about it.
    pub fn todo(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

/// The interface went away in the middle of it.
pub(crate) fn gone(interface: &str) -> Error {
    Error::new(
        Kind::InterfaceGone,
        format!("the interface `{interface}` is gone"),
    )
}

/// The number of the system's error at the bottom of an error.
pub fn errno(error: &(dyn StdError + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(this) = next {
        if let Some(io) = this.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        if let Some(number) = this.downcast_ref::<Errno>() {
            return Some(*number as i32);
        }
        // A cause that speaks for itself is not its own source.
        next = match this.downcast_ref::<Error>() {
            Some(error) => error.0.cause.as_deref().map(|cause| cause as &dyn StdError),
            None => this.source(),
        };
    }
    None
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.message, &self.0.cause) {
            (Some(message), _) => f.write_str(message)?,
            (None, Some(cause)) => write!(f, "{cause}")?,
            (None, None) => {}
        }
        let mut next = self.source().filter(|_| f.alternate());
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

/// The whole chain: a test that unwraps says why.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self:#}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let cause = self.0.cause.as_deref()?;
        if self.0.message.is_some() {
            Some(cause)
        } else {
            cause.source()
        }
    }
}

/// Errors of what lies below pass through `?` as [`Kind::System`].
macro_rules! passes {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self(Box::new(Inner {
                    kind: Kind::System,
                    message: None,
                    hint: None,
                    cause: Some(Box::new(error)),
                }))
            }
        }
    )*};
}

passes!(
    io::Error,
    Errno,
    serde_json::Error,
    std::num::ParseIntError,
    std::num::TryFromIntError,
    tokio::task::JoinError,
    hickory_resolver::net::NetError,
    aya::EbpfError,
    aya::BtfError,
    aya::maps::MapError,
    aya::pin::PinError,
    aya::programs::ProgramError,
    aya::programs::links::LinkError,
    aya_obj::ParseError,
);

/// Says of a result what was tried, as [`Error::context`] does.
pub trait Context<T> {
    /// With words that are there already.
    ///
    /// # Errors
    /// The error of the result, with the words in front.
    fn context(self, what: impl Into<String>) -> Result<T>;

    /// With words that are made only for an error.
    ///
    /// # Errors
    /// The error of the result, with the words in front.
    fn with_context<C: Into<String>>(self, what: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().context(what))
    }

    fn with_context<C: Into<String>>(self, what: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| error.into().context(what()))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.ok_or_else(|| Error::system(what))
    }

    fn with_context<C: Into<String>>(self, what: impl FnOnce() -> C) -> Result<T> {
        self.ok_or_else(|| Error::system(what()))
    }
}
