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

use super::endpoint::Endpoint;
use super::names::{is_nameless, up_of};
use crate::channel::{self, spsc};
use crate::error::{AttachError, EndError, OpenError, RemoveError};
use crate::lifecycle::{RingInfo, RingState, pairs};
use crate::memory::address::{Address, AddressError};

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
pub(super) struct Halves {
    pub(super) up: spsc::Ring,
    /// `None` if the pair's maker or remover was killed half-way.
    down: Option<spsc::Ring>,
}

impl Halves {
    pub(super) fn open(up: &Address) -> Result<Self, OpenError> {
        let open = |address: &Address| spsc::open(address);
        let up_ring = open(up)?;
        let down = match pairs::down_of(up, &up_ring.info()?.uuid).map(|down| open(&down)) {
            None | Some(Err(OpenError::NotFound { .. })) => None,
            Some(opened) => Some(opened?),
        };
        Ok(Self { up: up_ring, down })
    }

    /// Removes the first ring of a pair that can't be completed, unless a process uses it already.
    pub(super) fn discard(up: spsc::Ring) {
        let address = up.address().clone();
        let down = up
            .info()
            .ok()
            .and_then(|info| pairs::down_of(&address, &info.uuid));
        let down = down.and_then(|down| spsc::open(down).ok());
        let _ = Self { up, down }.remove();
    }

    /// True if the second ring is missing, and no process uses the first one.
    pub(super) fn are_half_made(&self) -> bool {
        self.down.is_none() && self.up.info().is_ok_and(|info| is_idle(&info))
    }

    /// True if no process uses the pair and an end of it was taken: its conversation is over.
    pub(super) fn are_over(&self) -> bool {
        let infos: Result<Vec<RingInfo>, OpenError> = [Some(&self.up), self.down.as_ref()]
            .into_iter()
            .flatten()
            .map(spsc::Ring::info)
            .collect();
        infos.is_ok_and(|infos| infos.iter().all(is_idle) && infos.iter().any(was_sent_to))
    }

    /// Removes both rings, unless a process uses them.
    pub(super) fn remove(&self) -> Result<(), RemoveError> {
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

/// Removes the pair at an address even if processes use it: their calls then return the `Removed` error.
///
/// Everything in it is lost.
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

/// An open pair of rings, from which a process takes one end of the connection.
///
/// A `Pair` alone is no end: the other end does not wait for it.
#[derive(Clone, Debug)]
pub struct Pair {
    pub(super) up: spsc::Ring,
    pub(super) down: spsc::Ring,
}

impl Pair {
    /// Combines two rings into a pair. Both sides must agree which ring is which.
    ///
    /// If the rings have names, the last end that is dropped removes them, as with any pair.
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

    /// Takes the server's end of the connection.
    ///
    /// It receives from the ring [to the server](Self::to_server) and sends into the one [to the
    /// client](Self::to_client).
    ///
    /// # Errors
    /// [`EndError::Taken`] while a live process has it, [`EndError::Spent`] if it was taken before, and
    /// [`EndError::Attach`].
    pub fn server_end(&self) -> Result<Endpoint, EndError> {
        self.take(&self.up, &self.down)
    }

    /// Takes the client's end of the connection.
    ///
    /// It sends into the ring [to the server](Self::to_server) and receives from the one [to the
    /// client](Self::to_client).
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

    /// Sends the pair through a Unix socket, to be [received](super::Builder::receive_from) by another process.
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
