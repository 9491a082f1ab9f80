// Sorts strings by a closure and counts them in a map, in two threads.
use std::collections::BTreeMap;

#[inline(never)]
fn word(n: u64) -> String {
    format!("{:x}", n.wrapping_mul(0x9e3779b97f4a7c15) >> 40)
}

#[inline(never)]
fn count(seed: u64) -> usize {
    let mut words: Vec<String> = (0..20_000).map(|i| word(seed + i)).collect();
    words.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| b.cmp(a)));
    let mut counts = BTreeMap::new();
    for w in &words {
        *counts.entry(&w[..w.len() / 2]).or_insert(0usize) += 1;
    }
    counts.values().copied().max().unwrap_or(0)
}

fn main() {
    let threads: Vec<_> = (0..2)
        .map(|t| std::thread::spawn(move || (0..200).map(|i| count(t * 1000 + i)).sum::<usize>()))
        .collect();
    for t in threads {
        println!("{}", t.join().unwrap());
    }
}
