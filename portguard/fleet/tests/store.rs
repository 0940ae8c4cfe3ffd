//! One suite for every store that can be written, and what only etcd or only a directory can do.

mod directory;
mod etcd;
mod https;
mod suite;
