//! Real members of etcd, on loopback, with certificates; they end with the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portguard_fleet::store::{Etcd, Files, Store as _};

use super::certs::Authority;

/// Where `cargo xtask setup` unpacks the server; a test fails without it, and says so.
fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../etcd/usr/bin/etcd");
    let found = std::env::var_os("PORTGUARD_ETCD").map_or(root, PathBuf::from);
    assert!(
        found.exists(),
        "no etcd at {}: `cargo xtask setup` unpacks it",
        found.display()
    );
    found
}

/// A cluster.
pub(crate) struct Cluster {
    pub(crate) authority: Authority,
    /// The administrator's.
    pub(crate) root: Files,
    pub(crate) hosts: Vec<String>,
    members: Vec<Option<Child>>,
    arguments: Vec<Vec<String>>,
    directory: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(directory.path());
        let server = authority.issue("server", 86_400);
        let root = authority.issue("root", 86_400);
        // Held until all are known, so that no two are the same.
        let held: Vec<TcpListener> = (0..count * 2)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports: Vec<u16> = held
            .iter()
            .map(|one| one.local_addr().unwrap().port())
            .collect();
        drop(held);
        let peers: Vec<String> = (0..count)
            .map(|member| format!("m{member}=https://127.0.0.1:{}", ports[member * 2 + 1]))
            .collect();
        let file = |path: &Option<PathBuf>| path.as_ref().unwrap().display().to_string();
        let arguments = (0..count)
            .map(|member| {
                let client = format!("https://127.0.0.1:{}", ports[member * 2]);
                let peer = format!("https://127.0.0.1:{}", ports[member * 2 + 1]);
                let data = directory
                    .path()
                    .join(format!("m{member}"))
                    .display()
                    .to_string();
                let mut all = Vec::new();
                for (flag, value) in [
                    ("name", format!("m{member}")),
                    ("data-dir", data),
                    ("listen-client-urls", client.clone()),
                    ("advertise-client-urls", client),
                    ("listen-peer-urls", peer.clone()),
                    ("initial-advertise-peer-urls", peer),
                    ("initial-cluster", peers.join(",")),
                    ("heartbeat-interval", "50".to_owned()),
                    ("election-timeout", "500".to_owned()),
                    ("cert-file", file(&server.cert)),
                    ("key-file", file(&server.key)),
                    ("trusted-ca-file", file(&server.ca)),
                    ("client-cert-auth", "true".to_owned()),
                    ("client-crl-file", authority.revoked().display().to_string()),
                    ("peer-cert-file", file(&server.cert)),
                    ("peer-key-file", file(&server.key)),
                    ("peer-trusted-ca-file", file(&server.ca)),
                    ("peer-client-cert-auth", "true".to_owned()),
                    ("logger", "zap".to_owned()),
                    ("log-level", "error".to_owned()),
                ] {
                    all.push(format!("--{flag}={value}"));
                }
                all
            })
            .collect();
        let mut cluster = Self {
            authority,
            root,
            hosts: (0..count)
                .map(|member| format!("127.0.0.1:{}", ports[member * 2]))
                .collect(),
            members: (0..count).map(|_| None).collect(),
            arguments,
            directory,
        };
        for member in 0..count {
            cluster.run(member);
        }
        cluster.wait().await;
        cluster
    }

    /// Starts a member (again).
    pub(crate) fn run(&mut self, member: usize) {
        let log =
            std::fs::File::create(self.directory.path().join(format!("m{member}.log"))).unwrap();
        let child = Command::new(program())
            .args(&self.arguments[member])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[member] = Some(child);
    }

    /// Ends a member at once.
    pub(crate) fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Freezes a member, or lets it go on.
    pub(crate) fn freeze(&self, member: usize, is_frozen: bool) {
        let id = self.members[member].as_ref().unwrap().id();
        let signal = if is_frozen { "-STOP" } else { "-CONT" };
        let done = Command::new("kill")
            .args([signal, &id.to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Forgets all that a member knew.
    pub(crate) fn wipe(&mut self, member: usize) {
        self.kill(member);
        std::fs::remove_dir_all(self.directory.path().join(format!("m{member}"))).unwrap();
    }

    pub(crate) fn store(&self) -> Etcd {
        self.store_as(&self.root)
    }

    pub(crate) fn store_as(&self, files: &Files) -> Etcd {
        Etcd::new(&self.hosts, files).unwrap()
    }

    pub(crate) fn store_at(&self, members: &[usize], files: &Files) -> Etcd {
        let hosts: Vec<String> = members
            .iter()
            .map(|member| self.hosts[*member].clone())
            .collect();
        Etcd::new(&hosts, files).unwrap()
    }

    /// Waits until the cluster answers.
    pub(crate) async fn wait(&self) {
        let begun = Instant::now();
        loop {
            let answer = self.store().get("head").await;
            match answer {
                Ok(_) => return,
                Err(error) if begun.elapsed() > Duration::from_secs(30) => {
                    let log = std::fs::read_to_string(self.directory.path().join("m0.log"))
                        .unwrap_or_default();
                    panic!("etcd does not answer: {error}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Which member leads.
    pub(crate) fn leader(&self) -> usize {
        let running = (0..self.hosts.len()).filter(|member| self.members[*member].is_some());
        running
            .into_iter()
            .find(|member| {
                let status = self.status(*member);
                status["leader"] == status["header"]["member_id"]
            })
            .expect("a leader")
    }

    /// Forgets all revisions but the last.
    pub(crate) fn compact(&self) {
        let revision = self.status(0)["header"]["revision"].to_string();
        let output = self.ctl(0, &["compact", "--physical", &revision]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Memory of a member, in KiB.
    pub(crate) fn memory(&self, member: usize) -> u64 {
        let id = self.members[member].as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn status(&self, member: usize) -> serde_json::Value {
        let output = self.ctl(member, &["endpoint", "status", "-w", "json"]);
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        said[0]["Status"].clone()
    }

    /// Writes what no client of ours would.
    pub(crate) fn put_raw(&self, key: &str, bytes: &[u8]) {
        let path = self.directory.path().join("value");
        std::fs::write(&path, bytes).unwrap();
        let mut command = self.command(0, &["put", &format!("/portguard/v1/{key}")]);
        let done = command
            .stdin(std::fs::File::open(&path).unwrap())
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    fn ctl(&self, member: usize, arguments: &[&str]) -> std::process::Output {
        self.command(member, arguments).output().unwrap()
    }

    fn command(&self, member: usize, arguments: &[&str]) -> Command {
        let file = |path: &Option<PathBuf>| path.as_ref().unwrap().display().to_string();
        let mut command = Command::new(program().with_file_name("etcdctl"));
        command
            .env("ETCDCTL_API", "3")
            .args([
                format!("--endpoints=https://{}", self.hosts[member]),
                format!("--cacert={}", file(&self.root.ca)),
                format!("--cert={}", file(&self.root.cert)),
                format!("--key={}", file(&self.root.key)),
            ])
            .args(arguments);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
        }
    }
}
