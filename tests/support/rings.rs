//! The builders of all tests. New rings get the guard that `SEMRING_GUARD` names (`semaphore` or `pipe`), unless a test
//! pins its guard: so a whole suite can be run over pipes. The library itself reads no such variable.

#![allow(dead_code)] // no suite uses all of them

use semring::{Address, AddressError, GuardChoice};

pub fn spsc(address: impl TryInto<Address, Error: Into<AddressError>>) -> semring::spsc::Builder {
    semring::spsc::Builder::new(address).default_guard(default_guard())
}

pub fn mpsc(address: impl TryInto<Address, Error: Into<AddressError>>) -> semring::mpsc::Builder {
    semring::mpsc::Builder::new(address).default_guard(default_guard())
}

pub fn any(address: impl TryInto<Address, Error: Into<AddressError>>) -> semring::any::Builder {
    semring::any::Builder::new(address).default_guard(default_guard())
}

pub fn pair(address: impl TryInto<Address, Error: Into<AddressError>>) -> semring::duplex::Builder {
    semring::duplex::Builder::new(address).default_guard(default_guard())
}

pub fn coprocess() -> semring::process::Builder {
    semring::process::Builder::new().default_guard(default_guard())
}

fn default_guard() -> GuardChoice {
    let said = std::env::var_os("SEMRING_GUARD").unwrap_or_default();
    match said.to_str() {
        Some("" | "auto") => GuardChoice::Auto,
        Some("semaphore") => GuardChoice::Semaphore,
        Some("pipe") => GuardChoice::Pipe,
        _ => panic!("SEMRING_GUARD={}", said.display()),
    }
}
