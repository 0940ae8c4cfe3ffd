//! The network: every member and every host behind a link of its own; what is between them forwards. And the certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use portguard_harness::net::{End, Host, Lab};

use crate::shell::capture;

/// Between all of them; operators are here, too.
pub(super) fn hub(lab: &Lab) -> Result<Host> {
    let hub = lab.host("network")?;
    hub.sysctl("net/ipv4/ip_forward", "1")?;
    Ok(hub)
}

/// A host with the address `10.79.NUMBER.2`, on an interface of this name.
pub(super) fn join(lab: &Lab, hub: &Host, number: u8, interface: &str) -> Result<Host> {
    let host = lab.host(&format!("10.79.{number}.2"))?;
    let near = End::new(interface).address(&format!("10.79.{number}.2/24"));
    let far = End::new(&format!("hub{number}")).address(&format!("10.79.{number}.1/24"));
    let link = lab.connect(&host, &near, hub, &far)?;
    let gateway = format!("10.79.{number}.1").parse()?;
    link.left
        .add_route("10.79.0.0/16".parse()?, Some(gateway))?;
    Ok(host)
}

/// An authority and what it issued, as files.
#[derive(Debug)]
pub(super) struct Certificates(PathBuf);

impl Certificates {
    pub(super) fn new(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let all = Self(directory.to_owned());
        // The system's configuration would add extensions of its own.
        std::fs::write(
            all.file("config"),
            "[req]\ndistinguished_name = none\n[none]\n",
        )?;
        let authority = [
            "basicConstraints=critical,CA:TRUE",
            "keyUsage=critical,keyCertSign",
        ];
        all.make("ca", "demo authority", &authority, false)?;
        Ok(all)
    }

    /// A certificate of this class, or of a server with these addresses.
    pub(super) fn issue(&self, file: &str, name: &str, addresses: &[String]) -> Result<()> {
        let addresses: Vec<String> = addresses.iter().map(|one| format!(",IP:{one}")).collect();
        let names = format!("subjectAltName=DNS:{name}{}", addresses.concat());
        let extensions = [
            "basicConstraints=critical,CA:FALSE",
            "extendedKeyUsage=serverAuth,clientAuth",
            &names,
        ];
        self.make(file, name, &extensions, true)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn make(&self, file: &str, name: &str, extensions: &[&str], is_issued: bool) -> Result<()> {
        let mut command = Command::new("openssl");
        command
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args([
                "-nodes",
                "-days",
                "2",
                "-subj",
                &format!("/CN={name}"),
                "-config",
            ])
            .arg(self.file("config"));
        for extension in extensions {
            command.args(["-addext", extension]);
        }
        if is_issued {
            command.arg("-CA").arg(self.file("ca.pem"));
            command.arg("-CAkey").arg(self.file("ca.key"));
        }
        command
            .arg("-keyout")
            .arg(self.file(&format!("{file}.key")));
        command.arg("-out").arg(self.file(&format!("{file}.pem")));
        capture(&mut command)?;
        Ok(())
    }
}
