//! The promise that makes a run durable, proved from outside: processes of the built command are killed, run out of room and find damaged
//! files, against a model server that counts, and the run goes on to the same end without paying for anything twice.

mod bench;
mod boundaries;
mod changes;
mod disk;
mod flights;
mod mortal;
mod people;
mod random;
pub(crate) mod server;
