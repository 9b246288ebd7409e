//! The three commands as people and scripts use them: real processes over real rings, each behaviour
//! written once and run over POSIX and over System V shared memory.

mod admin;
mod agreement;
mod bench;
mod contract;
mod coprocess;
mod deaths;
mod descriptors;
mod doctor;
mod file_size;
mod framings;
mod guards;
mod idle;
mod interrupts;
mod json;
mod kills;
mod looking;
mod misuse;
mod options;
mod orphans;
mod partial;
mod paths;
mod pipe_semantics;
mod planted;
mod readme;
mod restart;
mod sessions;
mod settings;
mod streams;
mod support;
mod suspend;
mod top;
mod transfer;
mod truncation;
mod users;
