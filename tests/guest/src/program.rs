//! Programs of a few instructions, made here: one that the verifier must refuse, and probes of what a kernel offers.

use anyhow::{Context as _, Result};
use aya::programs::tc::{self, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp};
use aya::{Ebpf, EbpfLoader};
use object::write::{Object, StandardSection, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};

/// `r0 = 0`
const ZERO: [u8; 8] = [0xb7, 0, 0, 0, 0, 0, 0, 0];
/// `exit`
const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

/// The kernel refuses a program that returns what it never set, and takes the same program with that set.
pub(crate) fn verifier_refuses() -> Result<()> {
    load_xdp(&[ZERO, EXIT]).context("a program without fault was refused")?;
    match load_xdp(&[EXIT]) {
        Ok(()) => anyhow::bail!("the kernel took a program that returns an unset register"),
        Err(_) => Ok(()),
    }
}

/// Where the kernel lets programs look at what the host sends: `tcx`, or the older `clsact`.
pub(crate) fn egress_hook(interface: &str) -> Result<&'static str> {
    let mut ebpf = load("classifier", &[ZERO, EXIT])?;
    let program: &mut SchedClassifier = program(&mut ebpf)?.try_into()?;
    program.load()?;
    let tcx = TcAttachOptions::TcxOrder(LinkOrder::default());
    if let Ok(link) = program.attach_with_options(interface, TcAttachType::Egress, tcx) {
        program.detach(link)?;
        return Ok("tcx");
    }
    tc::qdisc_add_clsact(interface).context("neither TCX nor clsact")?;
    let link = program.attach_with_options(
        interface,
        TcAttachType::Egress,
        TcAttachOptions::Netlink(tc::NlOptions::default()),
    )?;
    program.detach(link)?;
    Ok("clsact")
}

fn load_xdp(instructions: &[[u8; 8]]) -> Result<()> {
    let mut ebpf = load("xdp", instructions)?;
    let program: &mut Xdp = program(&mut ebpf)?.try_into()?;
    Ok(program.load()?)
}

fn load(section: &str, instructions: &[[u8; 8]]) -> Result<Ebpf> {
    Ok(EbpfLoader::new().load(&elf(section, instructions)?)?)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut aya::programs::Program> {
    ebpf.program_mut("probe")
        .context("no program in the object made here")
}

/// An object file with one program.
fn elf(section: &str, instructions: &[[u8; 8]]) -> Result<Vec<u8>> {
    let endian = if cfg!(target_endian = "big") {
        Endianness::Big
    } else {
        Endianness::Little
    };
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, endian);
    let license = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    file.append_section_data(license, b"GPL\0", 1);
    let _ = file.section_id(StandardSection::Text);
    let code = file.add_section(Vec::new(), section.as_bytes().to_vec(), SectionKind::Text);
    let bytes = instructions.concat();
    let offset = file.append_section_data(code, &bytes, 8);
    file.add_symbol(Symbol {
        name: b"probe".to_vec(),
        value: offset,
        size: bytes.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(code),
        flags: SymbolFlags::None,
    });
    Ok(file.write()?)
}
