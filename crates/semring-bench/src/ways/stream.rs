//! What has a descriptor at each end: pipes, FIFOs, sockets.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{End, Link, Made, Spec, Way, wrong_length};
use crate::Result;
use crate::trash::Trash;

/// Bytes for each call where messages leave in bulk: what a pipe holds.
const BULK: usize = 64 << 10;
/// Bytes of a long pipe, which a user may set without privilege.
const LONG: usize = 1 << 20;

/// How bytes leave.
enum Leaving {
    /// One call for each message.
    Each,
    /// In bulk, copied.
    Bulk(Vec<u8>),
    /// In bulk, lent to the pipe.
    Lent(Lent),
}

/// Buffers whose pages are in the pipe: one is used again only when the pipe can't hold it any more.
struct Lent {
    buffers: Vec<Vec<u8>>,
    current: usize,
    filled: usize,
}

pub(crate) struct StreamLink {
    output: File,
    input: File,
    leaving: Leaving,
    /// Read and not yet taken, where messages come in bulk.
    held: Vec<u8>,
    taken: usize,
    _trash: Vec<Trash>,
}

impl StreamLink {
    fn new(way: Way, input: OwnedFd, output: OwnedFd, trash: Vec<Trash>) -> Result<Self> {
        let leaving = match way {
            Way::PipePacked | Way::PipeLong => Leaving::Bulk(Vec::with_capacity(BULK)),
            Way::PipeVmsplice => Leaving::Lent(Lent {
                buffers: vec![vec![0; BULK]; LONG / BULK + 2],
                current: 0,
                filled: 0,
            }),
            _ => Leaving::Each,
        };
        if matches!(way, Way::PipeLong | Way::PipeVmsplice) {
            fcntl(output.as_fd(), FcntlArg::F_SETPIPE_SZ(LONG as i32))?;
        }
        Ok(Self {
            output: output.into(),
            input: input.into(),
            leaving,
            held: Vec::new(),
            taken: 0,
            _trash: trash,
        })
    }
}

impl Lent {
    fn push(&mut self, bytes: &[u8], output: &File) -> Result<()> {
        if self.filled + bytes.len() > BULK {
            self.lend(output)?;
        }
        let end = self.filled + bytes.len();
        self.buffers[self.current][self.filled..end].copy_from_slice(bytes);
        self.filled = end;
        Ok(())
    }

    fn lend(&mut self, output: &File) -> Result<()> {
        let mut rest = &self.buffers[self.current][..self.filled];
        while !rest.is_empty() {
            let part = libc::iovec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            };
            // SAFETY: one iovec over bytes that live as long as the link; the kernel only reads them.
            let lent = unsafe { libc::vmsplice(output.as_raw_fd(), &raw const part, 1, 0) };
            if lent < 0 {
                return Err(io::Error::last_os_error().into());
            }
            rest = &rest[lent as usize..];
        }
        self.filled = 0;
        self.current = (self.current + 1) % self.buffers.len();
        Ok(())
    }
}

impl Link for StreamLink {
    #[inline]
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.leaving {
            Leaving::Each => self.output.write_all(bytes)?,
            Leaving::Bulk(bulk) => {
                if bulk.len() + bytes.len() > BULK {
                    self.output.write_all(bulk)?;
                    bulk.clear();
                }
                bulk.extend_from_slice(bytes);
            }
            Leaving::Lent(lent) => lent.push(bytes, &self.output)?,
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, bytes: &mut [u8]) -> Result<()> {
        if matches!(self.leaving, Leaving::Each) {
            return Ok(self.input.read_exact(bytes)?);
        }
        while self.held.len() - self.taken < bytes.len() {
            self.held.drain(..self.taken);
            self.taken = 0;
            let before = self.held.len();
            self.held.resize(before + BULK, 0);
            let got = self.input.read(&mut self.held[before..]);
            self.held.truncate(before + *got.as_ref().unwrap_or(&0));
            if got? == 0 {
                return Err("the pipe ended".into());
            }
        }
        let end = self.taken + bytes.len();
        bytes.copy_from_slice(&self.held[self.taken..end]);
        self.taken = end;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match &mut self.leaving {
            Leaving::Each => {}
            Leaving::Bulk(bulk) => {
                self.output.write_all(bulk)?;
                bulk.clear();
            }
            Leaving::Lent(lent) => lent.lend(&self.output)?,
        }
        Ok(())
    }
}

impl Drop for StreamLink {
    fn drop(&mut self) {
        // Lent pages may still be in the pipe: they must stay as they are until they were read.
        if let Leaving::Lent(lent) = &mut self.leaving {
            std::mem::forget(std::mem::take(&mut lent.buffers));
        }
    }
}

pub(super) fn make_pipe(spec: Spec) -> Result<Made> {
    let (back_reader, back_writer) = io::pipe()?;
    let (there_reader, there_writer) = io::pipe()?;
    let mut stdio = Vec::new();
    for _ in 0..spec.senders {
        let stdin = there_reader.try_clone()?;
        stdio.push((Stdio::from(stdin), Stdio::from(back_writer.try_clone()?)));
    }
    let link = StreamLink::new(
        spec.way,
        back_reader.into(),
        there_writer.into(),
        Vec::new(),
    )?;
    Ok(Made {
        spec,
        stdio,
        end: End::Stream(link),
    })
}

/// A descriptor of this process that nobody else closes.
fn own(fd: impl AsFd) -> Result<OwnedFd> {
    Ok(fd.as_fd().try_clone_to_owned()?)
}

pub(super) fn open_pipe(spec: &Spec) -> Result<End> {
    let (input, output) = (own(io::stdin())?, own(io::stdout())?);
    let link = StreamLink::new(spec.way, input, output, Vec::new())?;
    Ok(End::Stream(link))
}

fn fifo(spec: &Spec, direction: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{}-{direction}", spec.name))
}

/// Both ways open at once: neither side waits for the other to open.
fn open_both_ways(path: &PathBuf) -> Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    Ok(file.into())
}

pub(super) fn make_fifo(spec: Spec) -> Result<Made> {
    let paths = ["there", "back"].map(|direction| fifo(&spec, direction));
    let mut trash = Vec::new();
    for path in &paths {
        let make = || Ok(mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?);
        trash.push(Trash::file(path.clone(), make)?);
    }
    let [there, back] = &paths;
    let link = StreamLink::new(
        spec.way,
        open_both_ways(back)?,
        open_both_ways(there)?,
        trash,
    )?;
    Ok(Made {
        stdio: super::no_stdio(spec.senders),
        spec,
        end: End::Stream(link),
    })
}

pub(super) fn open_fifo(spec: &Spec) -> Result<End> {
    let [there, back] = ["there", "back"].map(|direction| fifo(spec, direction));
    let (input, output) = (open_both_ways(&there)?, open_both_ways(&back)?);
    Ok(End::Stream(StreamLink::new(
        spec.way,
        input,
        output,
        Vec::new(),
    )?))
}

fn sockets(kind: SockType) -> Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, kind, None, flags)?)
}

fn stdio_of(spec: &Spec, theirs: &OwnedFd) -> Result<Vec<(Stdio, Stdio)>> {
    let mut stdio = Vec::new();
    for _ in 0..spec.senders {
        stdio.push((Stdio::from(own(theirs)?), Stdio::null()));
    }
    Ok(stdio)
}

pub(super) fn make_socket(spec: Spec) -> Result<Made> {
    let (ours, theirs) = sockets(SockType::Stream)?;
    let link = StreamLink::new(spec.way, own(&ours)?, ours, Vec::new())?;
    Ok(Made {
        stdio: stdio_of(&spec, &theirs)?,
        spec,
        end: End::Stream(link),
    })
}

pub(super) fn open_socket() -> Result<End> {
    let (input, output) = (own(io::stdin())?, own(io::stdin())?);
    let link = StreamLink::new(Way::UnixStream, input, output, Vec::new())?;
    Ok(End::Stream(link))
}

/// A socket that keeps messages apart.
pub(crate) struct PacketLink(OwnedFd);

pub(super) fn make_seqpacket(spec: Spec) -> Result<Made> {
    let (ours, theirs) = sockets(SockType::SeqPacket)?;
    Ok(Made {
        stdio: stdio_of(&spec, &theirs)?,
        spec,
        end: End::Packet(PacketLink(ours)),
    })
}

pub(super) fn open_seqpacket() -> Result<End> {
    Ok(End::Packet(PacketLink(own(io::stdin())?)))
}

impl Link for PacketLink {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(wrong_length(sent, bytes.len()))
        }
    }

    fn receive(&mut self, bytes: &mut [u8]) -> Result<()> {
        let got = recv(self.0.as_raw_fd(), bytes, MsgFlags::empty())?;
        if got == bytes.len() {
            Ok(())
        } else {
            Err(wrong_length(got, bytes.len()))
        }
    }
}
