//! Making and opening a pair. The order of the steps, and what is found after each if a process is killed there,
//! are described in [`pair`](super::pair).

use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::names::{Direction, is_nameless, part};
use super::pair::{Halves, Pair};
use crate::channel::{RingOptions, ring_options, spsc};
use crate::error::{CreateError, OpenError, OpenOrCreateError, RemoveError};
use crate::guard::timeouts::{PAIR_CHECK_INTERVAL, PAIR_MAKER_TIMEOUT};
use crate::memory::address::{Address, AddressError};

/// Options with which a pair of rings, a connection in both directions, is made or opened.
///
/// ```
/// use semring::{duplex, spsc};
/// # let name = format!("doc-pair-{}", std::process::id());
/// // Both rings get what one ring can have.
/// let ring = spsc::Builder::new(&name).capacity(1 << 20).mode(0o660);
/// let pair = duplex::Builder::from(ring).create()?;
/// assert_eq!(pair.to_server().capacity_bytes(), 1 << 20);
/// pair.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    ring: spsc::Builder,
}

impl From<spsc::Builder> for Builder {
    /// A pair under this builder's address, of two rings as this builder makes them.
    fn from(ring: spsc::Builder) -> Self {
        Self { ring }
    }
}

impl Builder {
    /// Options for the pair at an address.
    ///
    /// That is a `posix:` or `sysv:` name of at most 178 bytes, or a `file:` of which the last part has at most
    /// 233. The rings are called `NAME.up` and `NAME.down-` with 16 hexadecimal digits.
    #[must_use]
    pub fn new(address: impl TryInto<Address, Error: Into<AddressError>>) -> Self {
        spsc::Builder::new(address).into()
    }

    /// Options for a new pair in memory without names.
    ///
    /// Other processes get it [through a socket](Pair::send_over), or as two [inherited](crate::Ring::inheritable)
    /// descriptors that they [combine](Pair::of).
    #[must_use]
    pub fn memfd() -> Self {
        spsc::Builder::memfd().into()
    }

    /// Options for a new pair that this process shares with the children that it forks later.
    ///
    /// A child takes its end from the [`Pair`] that it inherited.
    #[must_use]
    pub fn anonymous() -> Self {
        spsc::Builder::anonymous().into()
    }

    /// What both rings are to be.
    fn options(&mut self) -> &mut RingOptions {
        self.ring.options()
    }

    ring_options!();

    /// Makes the pair; replaces one of this name that is no longer in use.
    ///
    /// An old pair is removed first, with its unread messages, if no process uses it and an end of it was taken
    /// before.
    ///
    /// # Errors
    /// [`CreateError::Exists`] if a pair of this name is in use, or was never used; and the others of
    /// [`CreateError`].
    pub fn create(&self) -> Result<Pair, CreateError> {
        self.check_names()?;
        let mut half_since = None;
        loop {
            let up = self.at(Direction::Up)?;
            match up.create() {
                Ok(made) => match self.complete(made.clone()) {
                    Ok(Some(pair)) => return Ok(pair),
                    // It was removed meanwhile.
                    Ok(None) => {}
                    Err(error) => {
                        // Half a pair is useless.
                        Halves::discard(made);
                        return Err(match error {
                            OpenOrCreateError::Create(error) => error,
                            OpenOrCreateError::Open(error) => not_completed(up.address(), error),
                        });
                    }
                },
                Err(CreateError::Exists { name }) => {
                    let address = up.address().clone()?;
                    match Halves::open(&address) {
                        Ok(halves) if halves.are_over() => match halves.remove() {
                            // Removed, by this process or another.
                            Ok(()) | Err(RemoveError::Open(_)) => {}
                            // The pair has a user now, or belongs to another user.
                            Err(_) => return Err(CreateError::Exists { name }),
                        },
                        // Another maker is at work, or was killed: after this time it is taken for killed. If it
                        // was only stopped, it will find that its ring is gone, and begin again.
                        Ok(halves) if halves.are_half_made() => {
                            let since = half_since.get_or_insert_with(Instant::now);
                            if since.elapsed() < PAIR_MAKER_TIMEOUT {
                                std::thread::sleep(PAIR_CHECK_INTERVAL);
                            } else if halves.remove().is_err() && halves.up.has_its_address() {
                                return Err(CreateError::Exists { name });
                            }
                        }
                        Err(OpenError::NotFound { .. }) => {}
                        _ => return Err(CreateError::Exists { name }),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens the pair, which must exist.
    ///
    /// # Errors
    /// As [`Builder::open`](crate::Builder::open). If its maker was killed before it was complete, this
    /// completes it, and fails as [`create`](Self::create) does.
    pub fn open(&self) -> Result<Pair, OpenOrCreateError> {
        self.check_names().map_err(OpenError::from)?;
        loop {
            let up = self.at(Direction::Up).map_err(OpenError::from)?.open()?;
            if let Some(pair) = self.complete(up)? {
                return Ok(pair);
            }
        }
    }

    /// Opens the pair, or makes it if there is none or the old one was used and is no longer in use.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(&self) -> Result<Pair, OpenOrCreateError> {
        loop {
            // Making comes first: it detects a pair that is over.
            match self.create() {
                Ok(pair) => return Ok(pair),
                Err(CreateError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            match self.open() {
                Err(OpenOrCreateError::Open(OpenError::NotFound { .. })) => {}
                opened => return opened,
            }
        }
    }

    /// Opens the pair that another process [sends](Pair::send_over) through a Unix socket; waits for it. The
    /// builder's address is not used.
    ///
    /// # Errors
    /// As [`Builder::receive_from`](crate::Builder::receive_from).
    pub fn receive_from(&self, socket: &UnixStream) -> Result<Pair, OpenError> {
        let up = self.ring.receive_from(socket)?;
        let down = self.ring.receive_from(socket)?;
        Ok(Pair::of(up, down))
    }

    /// The second ring for the first one: opened, or made. `None` if the pair was removed meanwhile.
    fn complete(&self, up: spsc::Ring) -> Result<Option<Pair>, OpenOrCreateError> {
        let info = match up.info() {
            Ok(info) => info,
            Err(_) if !is_nameless(up.address()) && !up.has_its_address() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let down = self
            .at(Direction::Down(&info.uuid))
            .map_err(OpenError::from)?
            .capacity(info.capacity_bytes)
            .mode(info.mode)
            .guard(info.guard)
            .auto_remove(true);
        if is_nameless(up.address()) {
            let down = down.create()?;
            return Ok(Some(Pair { up, down }));
        }
        let down = down.owner(info.uid).group(info.gid).open_or_create()?;
        if down.was_created() && !up.has_its_address() {
            // The process that removed up looked for down before it was made here, so it is removed
            // here.
            let _ = down.remove();
            return Ok(None);
        }
        Ok(Some(Pair { up, down }))
    }

    /// Both rings must be able to have their names, before there is one of them.
    fn check_names(&self) -> Result<(), AddressError> {
        self.at(Direction::Down("0123456789abcdef")).map(drop)
    }

    fn at(&self, direction: Direction<'_>) -> Result<spsc::Builder, AddressError> {
        let address = self.ring.address().clone()?;
        Ok(self.ring.at(part(&address, direction)?))
    }
}

/// A ring that could be made, but its other half not be opened.
fn not_completed(up: &Result<Address, AddressError>, error: OpenError) -> CreateError {
    let name = up.as_ref().map(Address::to_string).unwrap_or_default();
    CreateError::NotARing {
        name,
        what: format!("the ring for the other direction can't be used: {error}"),
    }
}
