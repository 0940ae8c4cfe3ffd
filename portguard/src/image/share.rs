//! Blocks of the address tables that are equal are kept once.
//!
//! Most blocks below the first level hold one or two prefixes of a few peer sets, so that few of them differ: a hundred
//! thousand prefixes take a fraction of the memory. Lookups are none the wiser.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use portguard_common::abi::Block;
use portguard_common::tables::Leaf;

/// Shares blocks. Every block must come after the one that refers to it, as painting makes them.
pub(super) fn share(roots: [&mut Vec<u32>; 2], blocks: Vec<Block>) -> Vec<Block> {
    let mut kept: Vec<Block> = Vec::new();
    let mut known: HashMap<u64, Vec<u32>> = HashMap::new();
    // What a reference to each block becomes.
    let mut words = vec![0; blocks.len()];
    for (index, mut block) in blocks.into_iter().enumerate().rev() {
        block
            .leaves
            .iter_mut()
            .for_each(|leaf| follow(leaf, &words));
        let word = match uniform(&block) {
            Some(class) => class,
            None => Leaf::BLOCK | keep(&mut kept, &mut known, &block),
        };
        if let Some(place) = words.get_mut(index) {
            *place = word;
        }
    }
    for leaf in roots.into_iter().flatten() {
        follow(leaf, &words);
    }
    kept
}

fn follow(leaf: &mut u32, words: &[u32]) {
    if *leaf & Leaf::BLOCK != 0 {
        *leaf = words
            .get((*leaf & Leaf::VALUE) as usize)
            .copied()
            .unwrap_or(0);
    }
}

/// The class that all of a block has, if it is one: then the block says nothing that its parent could not.
fn uniform(block: &Block) -> Option<u32> {
    let [first, ..] = block.leaves;
    let is_uniform = first & Leaf::BLOCK == 0 && block.leaves.iter().all(|leaf| *leaf == first);
    is_uniform.then_some(first)
}

/// The number of a block that is equal to this one.
fn keep(kept: &mut Vec<Block>, known: &mut HashMap<u64, Vec<u32>>, block: &Block) -> u32 {
    let mut hasher = DefaultHasher::new();
    block.leaves.hash(&mut hasher);
    let alike = known.entry(hasher.finish()).or_default();
    let is_same = |number: &&u32| {
        kept.get(**number as usize)
            .is_some_and(|other| other.leaves == block.leaves)
    };
    if let Some(number) = alike.iter().find(is_same) {
        return *number;
    }
    let number = u32::try_from(kept.len()).unwrap_or(Leaf::VALUE);
    kept.push(*block);
    alike.push(number);
    number
}

#[cfg(test)]
mod tests {
    use portguard_common::abi::Block;
    use portguard_common::tables::Leaf;

    use super::share;

    fn block(fill: u32, at: usize, leaf: u32) -> Block {
        let mut leaves = [fill; 256];
        leaves[at] = leaf;
        Block { leaves }
    }

    #[test]
    fn equal_blocks_are_one_and_uniform_ones_none() {
        let mut root = vec![Leaf::BLOCK, Leaf::BLOCK | 1, 7];
        let mut other = vec![Leaf::BLOCK | 2];
        let blocks = vec![
            // Two parents whose children turn out to be equal, so that they are equal as well.
            block(1, 9, Leaf::BLOCK | 3),
            block(1, 9, Leaf::BLOCK | 4),
            // One that all has one class, once its child is seen to have it.
            block(5, 3, Leaf::BLOCK | 5),
            block(1, 200, 2),
            block(1, 200, 2),
            block(5, 0, 5),
        ];
        let kept = share([&mut root, &mut other], blocks);
        assert_eq!(kept.len(), 2);
        assert_eq!(other, [5]);
        assert_eq!(root[0], root[1]);
        assert_eq!(root[2], 7);
        let parent = &kept[(root[0] & Leaf::VALUE) as usize];
        assert_eq!(parent.leaves[8], 1);
        let child = &kept[(parent.leaves[9] & Leaf::VALUE) as usize];
        assert_eq!((child.leaves[199], child.leaves[200]), (1, 2));
    }
}
