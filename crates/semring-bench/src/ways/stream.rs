//! Ways with a descriptor at each end: pipes, FIFOs, sockets.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::way::{Category, End, Setup, Spec, Way, no_obstacle, one_sender_only};
use crate::cleanup::CleanupGuard;
use crate::error::{Result, wrong_length};
use crate::link::Link;
use crate::payload::Bytes;
use crate::workload::Workload;

/// Bytes for each call where messages are packed: the capacity of a pipe.
const BULK: usize = 64 << 10;
/// The most bytes that a pipe keeps together when several processes write.
const PIPE_BUF: usize = 4096;
/// Bytes of a long pipe: the most that an unprivileged user may set.
const LONG: usize = 1 << 20;

const fn pipe(
    name: &'static str,
    label: &'static str,
    about: &'static str,
    obstacle: fn(&Spec) -> Option<String>,
) -> Way {
    Way {
        name,
        label,
        about,
        category: Category::Usual,
        obstacle,
        make: make_pipe,
        open: open_pipe,
    }
}

const PIPES: [(Way, Form); 6] = [
    (
        pipe(
            "pipe",
            "pipe",
            "A pipe: one write(2) and one read(2) for each message.",
            mixed,
        ),
        Form::Each,
    ),
    (
        pipe(
            "pipe-packed",
            "pipe, 64 KiB writes",
            "A pipe: as many messages as fit into 64 KiB for each write(2).",
            in_bulk,
        ),
        Form::Packed,
    ),
    (
        pipe(
            "pipe-long",
            "pipe of 1 MiB, packed",
            "The same through a pipe of 1 MiB (F_SETPIPE_SZ).",
            in_bulk,
        ),
        Form::Long,
    ),
    (
        pipe(
            "pipe-vmsplice",
            "pipe of 1 MiB, vmsplice",
            "The same; the pages are lent to the pipe instead of copied (vmsplice(2)).",
            in_bulk,
        ),
        Form::Lent,
    ),
    (
        Way {
            category: Category::Variant,
            ..pipe(
                "pipe-4k",
                "pipe, 4 KiB writes",
                "As many messages as fit into 4 KiB for each write(2), which the kernel keeps together.",
                |spec| (spec.workload != Workload::Producers).then(in_bulk_reason),
            )
        },
        Form::Pages,
    ),
    (
        Way {
            category: Category::Variant,
            ..pipe(
                "pipe-large-reads",
                "pipe, 64 KiB reads",
                "One write(2) for each message, and as many messages as there are for each read(2).",
                mixed,
            )
        },
        Form::LargeReads,
    ),
];

const OTHERS: [Way; 3] = [
    Way {
        name: "fifo",
        label: "FIFO",
        about: "A named pipe: one write(2) and one read(2) for each message.",
        category: Category::Usual,
        obstacle: mixed,
        make: make_fifo,
        open: open_fifo,
    },
    Way {
        name: "unix-stream",
        label: "Unix stream socket",
        about: "A Unix stream socket: one write(2) and one read(2) for each message.",
        category: Category::Usual,
        obstacle: one_sender_only,
        make: make_socket,
        open: |_, _| open_socket(),
    },
    Way {
        name: "unix-seqpacket",
        label: "Unix seqpacket",
        about: "A Unix socket with message boundaries: one send(2) and one recv(2) for each message.",
        category: Category::Usual,
        obstacle: no_obstacle,
        make: make_seqpacket,
        open: |_, _| open_seqpacket(),
    },
];

pub(super) fn ways() -> impl Iterator<Item = Way> {
    PIPES.into_iter().map(|(way, _)| way).chain(OTHERS)
}

fn form(way: Way) -> Form {
    let form = PIPES.iter().find(|(pipe, _)| *pipe == way);
    form.map_or(Form::Each, |(_, form)| *form)
}

/// How messages become writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Each,
    /// One write for each message; reads are large.
    LargeReads,
    /// Packed into 4 KiB.
    Pages,
    /// Packed into 64 KiB.
    Packed,
    /// Packed, in a pipe of 1 MiB.
    Long,
    /// As `Long`, without a copy.
    Lent,
}

fn in_bulk_reason() -> String {
    "messages are packed".into()
}

/// Packed messages can't be answered one by one, and writes of several senders would mix.
fn in_bulk(spec: &Spec) -> Option<String> {
    match spec.workload {
        Workload::OneWay => None,
        Workload::Producers => one_sender_only(spec),
        _ => Some(in_bulk_reason()),
    }
}

/// Writes of several senders mix if they are longer than PIPE_BUF.
fn mixed(spec: &Spec) -> Option<String> {
    (spec.size > PIPE_BUF).then(|| one_sender_only(spec))?
}

/// How bytes are written.
enum Leaving {
    /// One call for each message.
    Each,
    /// This many bytes at once, copied.
    Bulk(Vec<u8>, usize),
    /// Packed, and lent to the pipe.
    Lent(Lent),
}

/// Buffers whose pages are in the pipe. There are more of them than the pipe holds, so that a buffer is used
/// again only after it was read.
struct Lent {
    buffers: Vec<Vec<u8>>,
    current: usize,
    filled: usize,
}

pub(crate) struct StreamLink {
    output: File,
    input: File,
    leaving: Leaving,
    /// Whether a read may return several messages.
    reads_are_large: bool,
    /// For large reads: the bytes that were read, and the part of them that is not yet returned.
    held: Vec<u8>,
    rest: Range<usize>,
    _cleanup: Vec<CleanupGuard>,
}

impl StreamLink {
    fn new(
        form: Form,
        input: OwnedFd,
        output: OwnedFd,
        cleanup: Vec<CleanupGuard>,
    ) -> Result<Self> {
        let leaving = match form {
            Form::Each | Form::LargeReads => Leaving::Each,
            Form::Pages => Leaving::Bulk(Vec::with_capacity(PIPE_BUF), PIPE_BUF),
            Form::Packed | Form::Long => Leaving::Bulk(Vec::with_capacity(BULK), BULK),
            Form::Lent => Leaving::Lent(Lent {
                buffers: vec![vec![0; BULK]; LONG / BULK + 2],
                current: 0,
                filled: 0,
            }),
        };
        if matches!(form, Form::Long | Form::Lent) {
            fcntl(output.as_fd(), FcntlArg::F_SETPIPE_SZ(LONG as i32))?;
        }
        Ok(Self {
            output: output.into(),
            input: input.into(),
            leaving,
            reads_are_large: form != Form::Each,
            held: Vec::new(),
            rest: 0..0,
            _cleanup: cleanup,
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

impl<M: Bytes> Link<M> for StreamLink {
    #[inline]
    fn send(&mut self, message: &M) -> Result<()> {
        let bytes = message.bytes();
        match &mut self.leaving {
            Leaving::Each => self.output.write_all(bytes)?,
            Leaving::Bulk(bulk, most) => {
                if bulk.len() + bytes.len() > *most {
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
    fn receive(&mut self, message: &mut M) -> Result<()> {
        let bytes = message.bytes_mut();
        if !self.reads_are_large {
            return Ok(self.input.read_exact(bytes)?);
        }
        while self.rest.len() < bytes.len() {
            self.held.copy_within(self.rest.clone(), 0);
            self.rest = 0..self.rest.len();
            if self.held.len() < bytes.len() + BULK {
                self.held.resize(bytes.len() + BULK, 0);
            }
            match self.input.read(&mut self.held[self.rest.end..])? {
                0 => return Err("the pipe ended".into()),
                got => self.rest.end += got,
            }
        }
        let end = self.rest.start + bytes.len();
        bytes.copy_from_slice(&self.held[self.rest.start..end]);
        self.rest.start = end;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match &mut self.leaving {
            Leaving::Each => {}
            Leaving::Bulk(bulk, _) => {
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
        // Lent pages may still be in the pipe: they must not change until they were read.
        if let Leaving::Lent(lent) = &mut self.leaving {
            std::mem::forget(std::mem::take(&mut lent.buffers));
        }
    }
}

fn make_pipe(spec: Spec) -> Result<Setup> {
    let form = form(spec.way);
    let (back_reader, back_writer) = io::pipe()?;
    let (there_reader, there_writer) = io::pipe()?;
    let mut stdio = Vec::new();
    for _ in 0..spec.senders {
        let stdin = there_reader.try_clone()?;
        stdio.push((Stdio::from(stdin), Stdio::from(back_writer.try_clone()?)));
    }
    let link = StreamLink::new(form, back_reader.into(), there_writer.into(), Vec::new())?;
    Ok(Setup::inherited(spec, link, stdio))
}

/// A copy of a descriptor, owned by the caller.
fn own(fd: impl AsFd) -> Result<OwnedFd> {
    Ok(fd.as_fd().try_clone_to_owned()?)
}

fn open_pipe(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    let (input, output) = (own(io::stdin())?, own(io::stdout())?);
    let link = StreamLink::new(form(spec.way), input, output, Vec::new())?;
    Ok(Box::new(link))
}

fn fifo(spec: &Spec, direction: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{}-{direction}", spec.name))
}

/// Opens a FIFO for reading and writing, which does not wait for the other side.
fn open_both_ways(path: &PathBuf) -> Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    Ok(file.into())
}

fn make_fifo(spec: Spec) -> Result<Setup> {
    let paths = ["there", "back"].map(|direction| fifo(&spec, direction));
    let mut cleanup = Vec::new();
    for path in &paths {
        let make = || Ok(mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?);
        cleanup.push(CleanupGuard::file(path.clone(), make)?);
    }
    let [there, back] = &paths;
    let link = StreamLink::new(
        Form::Each,
        open_both_ways(back)?,
        open_both_ways(there)?,
        cleanup,
    )?;
    Ok(Setup::named(spec, link))
}

fn open_fifo(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    let [there, back] = ["there", "back"].map(|direction| fifo(spec, direction));
    let (input, output) = (open_both_ways(&there)?, open_both_ways(&back)?);
    let link = StreamLink::new(Form::Each, input, output, Vec::new())?;
    Ok(Box::new(link))
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

fn make_socket(spec: Spec) -> Result<Setup> {
    let (ours, theirs) = sockets(SockType::Stream)?;
    let link = StreamLink::new(Form::Each, own(&ours)?, ours, Vec::new())?;
    let stdio = stdio_of(&spec, &theirs)?;
    Ok(Setup::inherited(spec, link, stdio))
}

fn open_socket() -> Result<Box<dyn End>> {
    let (input, output) = (own(io::stdin())?, own(io::stdin())?);
    let link = StreamLink::new(Form::Each, input, output, Vec::new())?;
    Ok(Box::new(link))
}

/// A socket with message boundaries.
pub(crate) struct PacketLink(OwnedFd);

fn make_seqpacket(spec: Spec) -> Result<Setup> {
    let (ours, theirs) = sockets(SockType::SeqPacket)?;
    let stdio = stdio_of(&spec, &theirs)?;
    Ok(Setup::inherited(spec, PacketLink(ours), stdio))
}

fn open_seqpacket() -> Result<Box<dyn End>> {
    Ok(Box::new(PacketLink(own(io::stdin())?)))
}

impl<M: Bytes> Link<M> for PacketLink {
    fn send(&mut self, message: &M) -> Result<()> {
        let bytes = message.bytes();
        let sent = send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(wrong_length(sent, bytes.len()))
        }
    }

    fn receive(&mut self, message: &mut M) -> Result<()> {
        let bytes = message.bytes_mut();
        let got = recv(self.0.as_raw_fd(), bytes, MsgFlags::empty())?;
        if got == bytes.len() {
            Ok(())
        } else {
            Err(wrong_length(got, bytes.len()))
        }
    }
}
