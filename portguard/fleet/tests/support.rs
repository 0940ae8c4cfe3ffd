//! Keys, certificates, and members of etcd.

pub(crate) mod certs;
pub(crate) mod etcd;
pub(crate) mod sign;
