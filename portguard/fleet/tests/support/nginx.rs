//! A real web server on loopback, with certificates; it ends with the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::certs::Authority;

/// Where `cargo xtask setup` unpacks it; a test fails without it, and says so.
fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../etcd/usr/sbin/nginx");
    let found = std::env::var_os("PORTGUARD_NGINX").map_or(root, PathBuf::from);
    assert!(
        found.exists(),
        "no nginx at {}: `cargo xtask setup` unpacks it",
        found.display()
    );
    found
}

/// Serves a directory.
pub(crate) struct Nginx {
    pub(crate) authority: Authority,
    pub(crate) url: String,
    pub(crate) served: PathBuf,
    child: Child,
    directory: tempfile::TempDir,
}

impl Nginx {
    /// `verify`: whether clients must have a certificate.
    pub(crate) fn start(verify: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        // Its workers are nobody's.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root, mode).unwrap();
        let authority = Authority::new(root);
        let files = authority.issue("web", 86_400);
        let served = root.join("served");
        std::fs::create_dir(&served).unwrap();
        let port = {
            let held = TcpListener::bind("127.0.0.1:0").unwrap();
            held.local_addr().unwrap().port()
        };
        let shown = |path: &Option<PathBuf>| path.as_ref().unwrap().display().to_string();
        let verify = if verify { "on" } else { "off" };
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log stderr;\n\
             events {{}}\n\
             http {{ access_log {root}/access.log combined; etag on;\n\
             client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;\n\
             uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;\n\
             server {{ listen 127.0.0.1:{port} ssl; root {root}; keepalive_timeout 60;\n\
             ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {};\n\
             ssl_verify_client {verify}; location /served/ {{ }} }} }}\n",
            shown(&files.cert),
            shown(&files.key),
            authority.ca().display(),
            root = root.display(),
        );
        let path = root.join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        let child = Command::new(program())
            .arg("-p")
            .arg(root)
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(root.join("error.log")).unwrap())
            .spawn()
            .unwrap();
        Self {
            authority,
            url: format!("https://localhost:{port}/served"),
            served,
            child,
            directory,
        }
    }

    /// How many requests were answered so.
    pub(crate) fn answered(&self, status: u16) -> usize {
        let log = std::fs::read_to_string(self.directory.path().join("access.log"));
        let wanted = format!("\" {status} ");
        log.unwrap_or_default()
            .lines()
            .filter(|line| line.contains(&wanted))
            .count()
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}
