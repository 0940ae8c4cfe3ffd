//! How much stack the programs take, from their instructions: the verifier counts alike, but says so in its log only.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;
use portguard_kernel::object::OBJECT;
use serde::Deserialize;

/// What the kernel gives to a program and the functions that it calls, in all.
const LIMIT: u32 = 512;
/// Kernels round a function's share up to this, or to half of it.
const ROUNDED: u32 = 32;
/// The register that holds the frame.
const FRAME: u8 = 10;

#[derive(Debug, Deserialize)]
struct Budget {
    stack: Vec<Share>,
}

/// The stack of a program, bytes.
#[derive(Debug, Deserialize)]
struct Share {
    program: String,
    bytes: u32,
}

#[test]
fn stack_keeps_its_budget() {
    let budget: Budget =
        toml::from_str(include_str!("../budget.toml")).expect("the budget file is sound");
    let mut object = Object::parse(OBJECT).expect("an object");
    let sections: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    object
        .relocate_calls(&sections)
        .expect("functions that are there");
    assert_eq!(budget.stack.len(), object.programs.len());
    for share in &budget.stack {
        let program = object.programs.get(&share.program).expect("a program");
        let linked = &object.functions[&program.function_key()].instructions;
        let functions = functions(linked);
        let (bytes, own) = (deepest(&functions, 0), &functions[&0]);
        println!("{}: {bytes} bytes, {} of its own", share.program, own.frame);
        assert!(bytes <= share.bytes, "{share:?}: {bytes} bytes");
        assert!(
            bytes <= LIMIT,
            "{share:?}: the kernel gives no more than {LIMIT}"
        );
    }
}

/// A function's frame, and whom it calls.
#[derive(Debug, Default)]
struct Function {
    frame: u32,
    calls: BTreeSet<usize>,
}

/// The functions of a linked program, by their first instruction.
fn functions(linked: &[bpf_insn]) -> BTreeMap<usize, Function> {
    let target = |(at, instruction): (usize, &bpf_insn)| {
        // A call of another function, rather than of a helper.
        let is_call = instruction.code == 0x85 && instruction.src_reg() == 1;
        is_call.then(|| (at + 1).wrapping_add_signed(instruction.imm as isize))
    };
    let mut starts: BTreeSet<usize> = linked.iter().enumerate().filter_map(target).collect();
    starts.insert(0);
    let ends = starts.iter().copied().skip(1).chain([linked.len()]);
    let mut found = BTreeMap::new();
    for (start, end) in starts.iter().copied().zip(ends) {
        let mut function = Function::default();
        for at in start..end {
            function.calls.extend(target((at, &linked[at])));
            function.frame = function.frame.max(reach(linked, at));
        }
        found.insert(start, function);
    }
    found
}

/// How far below the top of the frame an instruction reaches.
fn reach(linked: &[bpf_insn], at: usize) -> u32 {
    let instruction = &linked[at];
    let below = |offset: i32| u32::try_from(-offset).unwrap_or(0);
    match instruction.code & 7 {
        1 if instruction.src_reg() == FRAME => below(instruction.off.into()),
        2 | 3 if instruction.dst_reg() == FRAME => below(instruction.off.into()),
        // A pointer into the frame: its offset is added next.
        7 if instruction.code == 0xbf && instruction.src_reg() == FRAME => linked
            .get(at + 1)
            .filter(|next| next.code == 0x07 && next.dst_reg() == instruction.dst_reg())
            .map_or(0, |next| below(next.imm)),
        _ => 0,
    }
}

/// The most that is in use at a time.
fn deepest(functions: &BTreeMap<usize, Function>, start: usize) -> u32 {
    let function = &functions[&start];
    let below = function.calls.iter().map(|call| deepest(functions, *call));
    function.frame.max(1).next_multiple_of(ROUNDED) + below.max().unwrap_or(0)
}
