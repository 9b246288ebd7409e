//! Passing a descriptor through a Unix socket (SCM_RIGHTS), with one byte of data.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::net::UnixStream;

/// The byte that the descriptor travels with.
const CARRIER: u8 = b'R';

/// Room for the control message of one descriptor, aligned as the kernel requires.
const CONTROL_WORDS: usize = 4;

/// Sends a descriptor; the receiver gets a number of its own for the same open file description.
pub(crate) fn send_descriptor(socket: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = [CARRIER];
    let mut control = [0u64; CONTROL_WORDS];
    let (mut vector, mut message) = (io_vector(&mut byte), empty_message());
    let number: libc::c_int = descriptor.as_raw_fd();
    // SAFETY: a computation from a number.
    let space = unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) };
    assert!(space as usize <= size_of_val(&control));
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as _;
    // SAFETY: the message's control buffer is set and long enough for one header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    let content = MaybeUninit::<libc::cmsghdr>::zeroed();
    // SAFETY: zeros are a valid cmsghdr.
    let mut content = unsafe { content.assume_init() };
    content.cmsg_level = libc::SOL_SOCKET;
    content.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: a computation from a number.
    content.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<libc::c_int>() as u32) } as _;
    // SAFETY: the header lies in `control`, which is aligned for it.
    unsafe { header.write(content) };
    // SAFETY: the header lies in `control`, which has room for its data.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: the assertion above: `control` has room for a number after the header.
    unsafe { data.cast::<libc::c_int>().write_unaligned(number) };
    super::retry(|| {
        // SAFETY: every buffer of the message lives through the call.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        if sent == -1 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    })
}

/// Receives a descriptor that [`send_descriptor`] sent; waits for it.
pub(crate) fn receive_descriptor(socket: &UnixStream) -> io::Result<File> {
    let mut byte = [0];
    let mut control = [0u64; CONTROL_WORDS];
    let (mut vector, mut message) = (io_vector(&mut byte), empty_message());
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let got = super::retry(|| {
        // SAFETY: every buffer of the message lives through the call.
        let got =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    })?;
    // Before any check: a descriptor that was received must be closed here.
    let file = take_descriptor(&message);
    match (got, file) {
        (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, Some(file)) if byte[0] == CARRIER => Ok(file),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the message on the socket holds no ring",
        )),
    }
}

/// The first descriptor of a received message. The control buffer has room for two: a second one, which
/// no sender of ours sends, is closed.
fn take_descriptor(message: &libc::msghdr) -> Option<File> {
    // SAFETY: recvmsg has filled the control buffer and set its length.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    if header.is_null() {
        return None;
    }
    // SAFETY: CMSG_FIRSTHDR gives null or a header within the buffer.
    let content = unsafe { header.read() };
    if content.cmsg_level != libc::SOL_SOCKET || content.cmsg_type != libc::SCM_RIGHTS {
        return None;
    }
    // SAFETY: a computation from a number.
    let empty = unsafe { libc::CMSG_LEN(0) } as usize;
    // A size_t in glibc, a socklen_t in musl.
    #[allow(clippy::unnecessary_cast)]
    let len = content.cmsg_len as usize;
    let count = len.saturating_sub(empty) / size_of::<libc::c_int>();
    // SAFETY: the header lies within the buffer.
    let data = unsafe { libc::CMSG_DATA(header) }.cast::<libc::c_int>();
    let mut files: Vec<File> = (0..count)
        .map(|index| {
            // SAFETY: the kernel has put `count` numbers after the header.
            let at = unsafe { data.add(index) };
            // SAFETY: as above.
            let number = unsafe { at.read_unaligned() };
            // SAFETY: the kernel has just opened it for this process; it is owned here.
            unsafe { File::from_raw_fd(number) }
        })
        .collect();
    (!files.is_empty()).then(|| files.swap_remove(0))
}

fn io_vector(byte: &mut [u8; 1]) -> libc::iovec {
    libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    }
}

fn empty_message() -> libc::msghdr {
    let message = MaybeUninit::<libc::msghdr>::zeroed();
    // SAFETY: zeros are a valid msghdr: no buffers.
    unsafe { message.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_arrives_as_the_same_file() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = crate::os::memfd::create(c"sent", 0o600, None).unwrap();
        send_descriptor(&ours, file.as_fd()).unwrap();
        let came = receive_descriptor(&theirs).unwrap();
        let identity = crate::os::file::identity;
        assert_eq!(identity(&came).unwrap(), identity(&file).unwrap());
        assert_ne!(came.as_raw_fd(), file.as_raw_fd());
    }

    #[test]
    fn bytes_alone_are_no_descriptor_and_the_end_is_the_end() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"RR").unwrap();
        let refused = receive_descriptor(&theirs).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        theirs.read_exact(&mut [0]).unwrap();
        drop(ours);
        let ended = receive_descriptor(&theirs).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }
}
