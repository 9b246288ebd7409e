//! A crowd: one process after the other attaches, stays for a moment and leaves, every second one by
//! SIGKILL.

use std::process::ExitCode;

use semring::any;
use semring_testkit::fork::{fork, kill_this};
use semring_testkit::message;
use semring_testkit::peer::Exit;

/// The kind, place and number of the processes.
pub struct Crowd {
    pub producers: bool,
    pub address: String,
    pub visits: u64,
}

impl Crowd {
    /// Lets them come. Each producer leaves one message of 8 bytes.
    pub fn run(&self) -> ExitCode {
        for visit in 0..self.visits {
            let killed = !visit.is_multiple_of(2);
            let child = fork(|| match self.visit(visit, killed) {
                Ok(()) => 0,
                Err(problem) => {
                    eprintln!("visit {visit}: {problem}");
                    1
                }
            });
            let exit = match child {
                Ok(mut child) => child.wait(),
                Err(error) => {
                    println!("visit {visit}: fork: {error}");
                    return ExitCode::FAILURE;
                }
            };
            if exit
                != (if killed {
                    Exit::Signal(9)
                } else {
                    Exit::Code(0)
                })
            {
                println!("visit {visit} ended: {exit}");
                return ExitCode::FAILURE;
            }
        }
        println!("{} visits, every second one ended by SIGKILL", self.visits);
        ExitCode::SUCCESS
    }

    fn visit(&self, visit: u64, killed: bool) -> Result<(), String> {
        let ring = any::open(&self.address).map_err(|error| format!("open: {error}"))?;
        if self.producers {
            let mut producer = ring
                .attach_producer()
                .map_err(|error| format!("attach: {error}"))?;
            let mut bytes = Vec::new();
            message::encode(1, visit, message::MIN_LEN, &mut bytes);
            let sent = producer.send(&bytes);
            sent.map_err(|error| format!("send: {error}"))?;
            if killed {
                kill_this();
            }
        } else {
            let _consumer = ring
                .attach_consumer()
                .map_err(|error| format!("attach: {error}"))?;
            if killed {
                kill_this();
            }
        }
        Ok(())
    }
}
