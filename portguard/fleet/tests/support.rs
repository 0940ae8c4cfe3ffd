//! Keys, certificates, members of etcd, and a web server.

pub(crate) mod certs;
pub(crate) mod etcd;
pub(crate) mod nginx;
pub(crate) mod sign;
