//! Making, opening and removing two rings as a unit.
//!
//! ```text
//! NAME.up            client → server     the pair's name: the pair exists if this ring does
//! NAME.down-UUID     server → client     the first 16 digits of the first ring's uuid
//! ```
//! * **Making**: up, then down. A maker that is killed between the two leaves up alone; a process that opens
//!   the pair then makes down, as the maker would have (if several do, all get the same ring). So no user ever
//!   gets half a pair. A maker that finds no room for down removes up again; `create` replaces half a pair
//!   that stays one.
//! * **Removing**: up, then down. A remover that is killed between the two leaves a down that belongs to no
//!   later up, since a new up has another uuid. Down is auto-removed, so `semring prune` removes it if it is
//!   empty.
//! * **Opening while another process removes**: the opener may make a new down after the remover removed the
//!   old one. It then checks whether up still has its name, and if not removes down again.
//!
//! A process takes an end by taking the role of its consumer, then that of its producer. The holder of the
//! first role alone can check without a race whether the second was ever taken: if so there was a
//! conversation, and the end is spent. If a process is killed between the two, the end was never taken.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use crate::channel::{self, RingOptions, ring_options, spsc};
use crate::error::{AttachError, CreateError, EndError, OpenError, OpenOrCreateError, RemoveError};
use crate::lifecycle::{RingInfo, RingState, pairs};
use crate::memory::address::{Address, AddressError, Backend};

/// How long another maker may take between the two rings of a pair.
const MAKER_PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait before looking at half a pair again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Options of a pair of rings, with which it is made or opened.
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

/// Which ring of a pair.
#[derive(Clone, Copy)]
enum Direction<'a> {
    Up,
    /// Of the up ring with this uuid.
    Down(&'a str),
}

impl Builder {
    /// Options for the pair at an address: a `posix:` or `sysv:` name of at most 178 bytes, or a `file:` of which the
    /// last part has at most 233. The rings are called `NAME.up` and `NAME.down-` with 16 hexadecimal digits.
    #[must_use]
    pub fn new(address: impl TryInto<Address, Error: Into<AddressError>>) -> Self {
        spsc::Builder::new(address).into()
    }

    /// Options for a new pair in memory without names. Other processes get it [through a
    /// socket](Pair::send_over), or as two [inherited](crate::Ring::inheritable) descriptors that they
    /// [combine](Pair::of).
    #[must_use]
    pub fn memfd() -> Self {
        spsc::Builder::memfd().into()
    }

    /// Options for a new pair that this process shares with the children that it forks later. A child
    /// takes its end from the [`Pair`] that it inherited.
    #[must_use]
    pub fn anonymous() -> Self {
        spsc::Builder::anonymous().into()
    }

    /// What both rings are to be.
    fn options(&mut self) -> &mut RingOptions {
        self.ring.options()
    }

    ring_options!();

    /// Makes the pair. An old pair of this name is removed first, with its unread messages, if no process
    /// uses it and an end of it was taken before.
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
                            if since.elapsed() < MAKER_PATIENCE {
                                std::thread::sleep(RETRY_INTERVAL);
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

    /// Opens the pair, or makes it if there is none or the old one is over.
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

/// True for memory that bears no name.
fn is_nameless(address: &Address) -> bool {
    matches!(address.backend(), Backend::Memfd | Backend::Anonymous)
}

/// The address of one of the rings.
fn part(address: &Address, direction: Direction<'_>) -> Result<Address, AddressError> {
    let name = address.name();
    let refused = |rule| {
        Err(AddressError::BadName {
            name: name.clone(),
            rule,
        })
    };
    match address.backend() {
        Backend::Anonymous => Ok(address.clone()),
        Backend::Memfd if !address.to_string().starts_with("memfd:") => {
            refused("a descriptor is one ring: open both, and put them together with Pair::of")
        }
        Backend::Memfd if name.is_empty() => Ok(address.clone()),
        Backend::Sysv if name.starts_with("0x") || name.contains('#') => {
            refused("a key is one ring, and a pair is two: use a name")
        }
        _ => {
            pairs::check_length(address)?;
            match direction {
                Direction::Up => pairs::up_name(address).parse(),
                Direction::Down(uuid) => pairs::down_name(address, uuid).parse(),
            }
        }
    }
}

fn is_idle(info: &RingInfo) -> bool {
    matches!(info.state, RingState::Idle | RingState::GuardRenewable)
}

/// True if there ever was a producer: the end that sends into this ring was taken.
fn was_sent_to(info: &RingInfo) -> bool {
    info.lanes.iter().any(|lane| lane.attached_producers > 0)
}

fn in_use(info: &RingInfo) -> RemoveError {
    RemoveError::InUse {
        name: info.address.to_string(),
        producers: info
            .lanes
            .iter()
            .filter_map(|lane| lane.producer_pid)
            .collect(),
        consumer: info.consumer_pid,
    }
}

/// The rings of a pair that is there: these, not others that come to have their names.
struct Halves {
    up: spsc::Ring,
    /// `None` if the pair's maker or remover was killed half-way.
    down: Option<spsc::Ring>,
}

impl Halves {
    fn open(up: &Address) -> Result<Self, OpenError> {
        let open = |address: &Address| spsc::open(address);
        let up_ring = open(up)?;
        let down = match pairs::down_of(up, &up_ring.info()?.uuid).map(|down| open(&down)) {
            None | Some(Err(OpenError::NotFound { .. })) => None,
            Some(opened) => Some(opened?),
        };
        Ok(Self { up: up_ring, down })
    }

    /// Removes the first ring of a pair that can't be completed, unless a process uses it already.
    fn discard(up: spsc::Ring) {
        let address = up.address().clone();
        let down = up
            .info()
            .ok()
            .and_then(|info| pairs::down_of(&address, &info.uuid));
        let down = down.and_then(|down| spsc::open(down).ok());
        let _ = Self { up, down }.remove();
    }

    /// True if the second ring is missing, and no process uses the first one.
    fn are_half_made(&self) -> bool {
        self.down.is_none() && self.up.info().is_ok_and(|info| is_idle(&info))
    }

    /// True if no process uses the pair and an end of it was taken: its conversation is over.
    fn are_over(&self) -> bool {
        let infos: Result<Vec<RingInfo>, OpenError> = [Some(&self.up), self.down.as_ref()]
            .into_iter()
            .flatten()
            .map(spsc::Ring::info)
            .collect();
        infos.is_ok_and(|infos| infos.iter().all(is_idle) && infos.iter().any(was_sent_to))
    }

    /// Removes both rings, unless a process uses them.
    fn remove(&self) -> Result<(), RemoveError> {
        if let Some(down) = &self.down {
            let info = down.info()?;
            if info.state == RingState::Active {
                return Err(in_use(&info));
            }
        }
        self.up.remove()?;
        match self.down.as_ref().map(spsc::Ring::remove) {
            // Another process removes the same pair.
            None | Some(Err(RemoveError::Open(OpenError::NotFound { .. }))) => Ok(()),
            Some(removed) => removed,
        }
    }
}

/// Removes the pair at an address, with everything in it, unless a process has an end of it.
///
/// # Errors
/// [`RemoveError::InUse`], [`RemoveError::Open`] if there is no such pair.
pub fn remove(
    address: impl TryInto<Address, Error: Into<AddressError>>,
) -> Result<(), RemoveError> {
    Halves::open(&up_of(address)?)?.remove()
}

/// Removes the pair at an address, with everything in it. Processes that have an end of it get its `Removed`
/// error.
///
/// # Errors
/// [`RemoveError::Open`] if there is no such pair, [`RemoveError::Permission`], and the others.
pub fn force_remove(
    address: impl TryInto<Address, Error: Into<AddressError>>,
) -> Result<(), RemoveError> {
    let up = up_of(address)?;
    let down = pairs::down_of(&up, &channel::inspect(&up)?.uuid);
    channel::force_remove(&up)?;
    match down.map(channel::force_remove) {
        None | Some(Err(RemoveError::Open(OpenError::NotFound { .. }))) => Ok(()),
        Some(removed) => removed.map(drop),
    }
}

/// The first ring of the pair at an address.
fn up_of(address: impl TryInto<Address, Error: Into<AddressError>>) -> Result<Address, OpenError> {
    Ok(part(&Address::of(address)?, Direction::Up)?)
}

/// The pair that an address means: by the pair's own name, or by that of one of its two rings. `None` if a ring that is
/// no part of a pair has this address, or there is nothing.
///
/// ```
/// use semring::{Address, duplex};
/// # let name = format!("doc-pair-at-{}", std::process::id());
/// let pair = duplex::Builder::new(&name).create()?;
/// let address: Address = name.parse()?;
/// for address in [&address, pair.to_server().address(), pair.to_client().address()] {
///     assert_eq!(duplex::pair_at(address).unwrap().to_string(), format!("posix:{name}"));
/// }
/// pair.remove()?;
/// assert!(duplex::pair_at(&address).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn pair_at(address: impl TryInto<Address, Error: Into<AddressError>>) -> Option<Address> {
    pairs::pair_at(&Address::of(address).ok()?)
}

/// An open pair of rings. It holds no end: no peer waits for an open pair.
#[derive(Clone, Debug)]
pub struct Pair {
    up: spsc::Ring,
    down: spsc::Ring,
}

impl Pair {
    /// Combines two rings into a pair. Both sides must agree which ring is which. If the rings have names,
    /// the last end that is dropped removes them, as with any pair.
    ///
    /// ```no_run
    /// use semring::{duplex::Pair, spsc};
    /// // A program that was started with two descriptors.
    /// let pair = Pair::of(spsc::open("fd:3")?, spsc::open("fd:4")?);
    /// let mut end = pair.client_end()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn of(to_server: spsc::Ring, to_client: spsc::Ring) -> Self {
        Self {
            up: to_server,
            down: to_client,
        }
    }

    /// Takes the server's end, which receives from the ring [to the server](Self::to_server) and sends into the one
    /// [to the client](Self::to_client).
    ///
    /// # Errors
    /// [`EndError::Taken`] while a live process has it, [`EndError::Spent`] if it was taken before, and
    /// [`EndError::Attach`].
    pub fn server_end(&self) -> Result<Endpoint, EndError> {
        self.take(&self.up, &self.down)
    }

    /// Takes the client's end, which sends into the ring [to the server](Self::to_server) and receives from the one
    /// [to the client](Self::to_client).
    ///
    /// # Errors
    /// As [`server_end`](Self::server_end).
    pub fn client_end(&self) -> Result<Endpoint, EndError> {
        self.take(&self.down, &self.up)
    }

    fn take(&self, incoming: &spsc::Ring, outgoing: &spsc::Ring) -> Result<Endpoint, EndError> {
        let end = self.try_to_take(incoming, outgoing);
        if end.is_err() {
            // This process had a role for a moment, in which another process may have failed to remove
            // the names.
            self.clear_away();
        }
        end
    }

    fn try_to_take(
        &self,
        incoming: &spsc::Ring,
        outgoing: &spsc::Ring,
    ) -> Result<Endpoint, EndError> {
        let consumer = match incoming.attach_consumer() {
            Err(AttachError::ConsumerPresent { pid }) => return Err(EndError::Taken { pid }),
            other => other?,
        };
        let sent = outgoing.info()?;
        if let Some(pid) = sent.lanes.iter().find_map(|lane| lane.producer_pid) {
            return Err(EndError::Taken { pid });
        }
        if was_sent_to(&sent) {
            return Err(EndError::Spent);
        }
        let producer = outgoing.attach_producer()?;
        // The other end was here, and has gone: a producer that has known no consumer would wait for one, and
        // none will come.
        if was_sent_to(&incoming.info()?) && outgoing.info()?.consumer_pid.is_none() {
            outgoing.hang_up();
        }
        Ok(Endpoint::new(producer, consumer, Taken(self.clone())))
    }

    /// Removes the names if the pair is over: both ends were taken, and no process holds one. Also
    /// removes the rest of a pair that another process is removing or has half removed.
    fn clear_away(&self) {
        let Self { up, down } = self;
        // In a forked child the end is the parent's.
        if is_nameless(up.address()) || up.is_forked() {
            return;
        }
        // A process still has an end, or was faster, or the pair belongs to another user: all of that
        // is fine.
        if !up.has_its_address() {
            let _ = down.remove();
        } else if [up, down]
            .into_iter()
            .all(|ring| ring.info().is_ok_and(|info| was_sent_to(&info)))
        {
            let _ = self.remove();
        }
    }

    /// The ring from the client to the server.
    #[must_use]
    pub fn to_server(&self) -> &spsc::Ring {
        &self.up
    }

    /// The ring from the server to the client.
    #[must_use]
    pub fn to_client(&self) -> &spsc::Ring {
        &self.down
    }

    /// Sends the pair through a Unix socket, to be [received](Builder::receive_from) by another process.
    ///
    /// ```
    /// use semring::duplex::Builder;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let pair = Builder::memfd().create()?;
    /// pair.send_over(&ours)?;
    /// let mut server = pair.server_end()?;
    /// // In the other process:
    /// let mut client = Builder::memfd().receive_from(&theirs)?.client_end()?;
    /// client.send(b"no name, no file")?;
    /// assert_eq!(server.recv()?.to_vec(), b"no name, no file");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Ring::send_over`](crate::Ring::send_over).
    pub fn send_over(&self, socket: &UnixStream) -> io::Result<()> {
        self.up.send_over(socket)?;
        self.down.send_over(socket)
    }

    /// Removes the pair with everything in it, unless a process holds an end of it.
    ///
    /// # Errors
    /// [`RemoveError::InUse`], [`RemoveError::Permission`], and the others.
    pub fn remove(&self) -> Result<(), RemoveError> {
        let halves = Halves {
            up: self.up.clone(),
            down: Some(self.down.clone()),
        };
        halves.remove()
    }
}

/// Held by both halves of an end. When the last holder of an end drops it, the names are removed.
#[derive(Debug)]
pub(super) struct Taken(Pair);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.clear_away();
    }
}
