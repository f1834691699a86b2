//! Samples for others: sFlow version 5 datagrams to a collector.

mod datagram;
mod sender;

pub use self::{
    datagram::{Counters, Encoder, MAX_DATAGRAM},
    sender::{Exporter, Stand},
};
