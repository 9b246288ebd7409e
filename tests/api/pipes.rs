//! Messages filled from and written to real pipes, without a copy in between.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::fixture::{Fixture, MAX, await_asleep, thread_id};

fn never_wait(file: &impl AsFd) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(file.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
}

/// Lets SIGURG interrupt system calls of any thread, and do nothing else.
fn let_signals_interrupt() {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGURG, &action) }.unwrap();
}

/// Sends the signal to one thread of this process.
fn interrupt(thread: i32) {
    // SAFETY: a signal that is handled, to a thread of our own.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, libc::SIGURG) };
    assert_eq!(sent, 0, "{}", io::Error::last_os_error());
}

over_each_backend! {
    fn a_pipe_goes_through_a_ring_unchanged(fixture) {
        const BYTES: usize = 300_000;
        let text: Vec<u8> = (0..BYTES).map(|at| (at * 7 + at / 255) as u8).collect();
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let (input, mut feed) = io::pipe().unwrap();
        let (mut result, output) = io::pipe().unwrap();
        let arrived = thread::scope(|scope| {
            scope.spawn(|| feed.write_all(&text).map(|()| drop(feed)).unwrap());
            scope.spawn(move || loop {
                let mut reservation = producer.reserve(MAX).unwrap();
                // Until the message is full or the input ends: a read from a pipe returns what is
                // there.
                while reservation.fill_from(&input).unwrap() > 0 {}
                let got = reservation.written();
                reservation.truncate(got);
                if got == 0 {
                    break;
                }
                reservation.commit();
            });
            scope.spawn(move || {
                while let Ok(message) = consumer.recv() {
                    let mut written = 0;
                    while written < message.len() {
                        written += message.write_to(written, &output).unwrap();
                    }
                }
            });
            let mut arrived = Vec::new();
            result.read_to_end(&mut arrived).unwrap();
            arrived
        });
        assert!(arrived == text);
    }

    fn filling_and_writing_go_on_where_they_stopped(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let (input, mut feed) = io::pipe().unwrap();
        let mut reservation = producer.reserve(10).unwrap();
        reservation.write_all(b"> ").unwrap();
        feed.write_all(b"abc").unwrap();
        assert_eq!((reservation.fill_from(&input).unwrap(), reservation.written()), (3, 5));
        feed.write_all(b"defghijkl").unwrap();
        assert_eq!((reservation.fill_from(&input).unwrap(), reservation.written()), (5, 10));
        // Full: nothing is read, the rest stays in the pipe.
        assert_eq!(reservation.fill_from(&input).unwrap(), 0);
        reservation.commit();
        drop(feed);
        let mut reservation = producer.reserve(10).unwrap();
        assert_eq!(reservation.fill_from(&input).unwrap(), 4);
        assert_eq!(reservation.fill_from(&input).unwrap(), 0, "the end of the input");
        let written = reservation.written();
        reservation.truncate(written);
        reservation.commit();
        let (mut result, output) = io::pipe().unwrap();
        let message = consumer.recv().unwrap();
        assert_eq!(message.write_to(8, &output).unwrap(), 2);
        assert_eq!(message.write_to(10, &output).unwrap(), 0);
        message.release();
        let mut batch = consumer.recv_batch().unwrap();
        assert_eq!(batch.next_message().unwrap().write_to(0, &output).unwrap(), 4);
        drop((batch, output));
        let mut text = String::new();
        result.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ghijkl");
    }

    fn pipe_errors_are_passed_on(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let (input, _feed) = io::pipe().unwrap();
        never_wait(&input);
        let mut reservation = producer.reserve(10).unwrap();
        assert_eq!(reservation.fill_from(&input).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(reservation.written(), 0);
        let write_only = File::options().write(true).open("/dev/null").unwrap();
        let bad = reservation.fill_from(&write_only).unwrap_err();
        assert_eq!(bad.raw_os_error(), Some(libc::EBADF));
        reservation.commit();
        let (result, output) = io::pipe().unwrap();
        never_wait(&output);
        let message = consumer.recv().unwrap();
        let full = loop {
            match message.write_to(0, &output) {
                Ok(count) => assert!(count > 0),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        drop(result);
        // The test harness ignores SIGPIPE, as every Rust program does.
        assert_eq!(message.write_to(0, &output).unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(File::open("/dev/full").is_ok());
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = message.write_to(0, &full).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }

    fn a_signal_interrupts_filling_and_writing(fixture) {
        let_signals_interrupt();
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let (input, mut feed) = io::pipe().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let filling = scope.spawn(|| {
                tell.send(thread_id()).unwrap();
                let mut reservation = producer.reserve(5).unwrap();
                let first = reservation.fill_from(&input).map_err(|error| error.kind());
                tell.send(thread_id()).unwrap();
                let second = reservation.fill_from(&input).map_err(|error| error.kind());
                reservation.commit();
                (first, second)
            });
            let thread = told.recv().unwrap();
            await_asleep(thread, &[libc::SYS_read]);
            interrupt(thread);
            told.recv().unwrap();
            feed.write_all(b"again").unwrap();
            assert_eq!(filling.join().unwrap(), (Err(ErrorKind::Interrupted), Ok(5)));
        });
        let (mut result, output) = io::pipe().unwrap();
        // Leave no room in the pipe, so that the write waits.
        never_wait(&output);
        let mut filler = output.try_clone().unwrap();
        while filler.write(&[0; 4096]).is_ok() {}
        nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
        assert!(output.as_raw_fd() >= 0);
        thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let message = consumer.recv().unwrap();
                tell.send(thread_id()).unwrap();
                let first = message.write_to(0, &output).map_err(|error| error.kind());
                tell.send(thread_id()).unwrap();
                (first, message.write_to(0, &output).map_err(|error| error.kind()))
            });
            let thread = told.recv().unwrap();
            await_asleep(thread, &[libc::SYS_write]);
            interrupt(thread);
            told.recv().unwrap();
            result.read_exact(&mut [0; 8192]).unwrap();
            assert_eq!(writing.join().unwrap(), (Err(ErrorKind::Interrupted), Ok(5)));
        });
    }
}

#[test]
#[should_panic(expected = "the message is shorter")]
fn writing_from_beyond_a_message_panics() {
    let fixture = Fixture::new("posix", "beyond");
    let ring = fixture.spsc();
    ring.attach_producer().unwrap().send(b"12").unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    let _ = consumer.recv().unwrap().write_to(3, io::stdout());
}
