//! Which public types can go to, or be used by, another thread: the statements of the crate guide, checked by the compiler.

use super::{
    Any, ArrayRef, ArrayReservation, Builder, Consumer, Interrupter, Message, MessageRef, Messages,
    Pollable, Producer, RecvBatch, Reservation, Ring, SendBatch,
};
use crate::error::{CallError, CreateError, OpenError, RecvError, RemoveError, SendError};
use crate::guard::deadline::Deadline;
use crate::lifecycle::{Orphan, RingInfo};
use crate::memory::Address;

pub(crate) const fn send<T: Send>() {}
pub(crate) const fn send_and_sync<T: Send + Sync>() {}

const _: () = {
    send_and_sync::<Address>();
    send_and_sync::<Builder<Any>>();
    send_and_sync::<Ring<Any>>();
    send_and_sync::<Interrupter>();
    send_and_sync::<Pollable>();
    send_and_sync::<Deadline>();
    send_and_sync::<RingInfo>();
    send_and_sync::<Orphan>();

    send::<Producer<Any>>();
    send::<Consumer>();
    send::<Message<'_>>();
    send::<MessageRef<'_>>();
    send::<Messages<'_>>();
    send::<RecvBatch<'_>>();
    send::<ArrayRef<'_>>();
    send::<ArrayReservation<'_>>();
    send::<Reservation<'_>>();
    send::<SendBatch<'_>>();

    send_and_sync::<SendError>();
    send_and_sync::<RecvError>();
    send_and_sync::<CallError>();
    send_and_sync::<OpenError>();
    send_and_sync::<CreateError>();
    send_and_sync::<RemoveError>();
};
