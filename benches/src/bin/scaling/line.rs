//! Cache lines, as far as a shared word's cost goes.
//!
//! A line is held by some CPUs, and is dirty if one of them has written it since. A read that
//! finds it here is a hit; else it comes from the nearest holder. A read-modify-write is a hit if
//! nobody else holds the line; else it takes it from all others, at the price of the furthest.
//! One such transfer at a time, in order of arrival: that queue is what saturates. Reads of a
//! clean line do not wait for each other, but for `home`.
//!
//! What real machines do and this does not: a core keeps a line for several operations in a row,
//! prefetchers, store buffers (a plain store is a read-modify-write here), directories that are
//! full.

use super::word::{WORDS, Word};

/// Picoseconds.
pub(crate) type Ps = u64;

/// A nanosecond.
pub(crate) const NS: Ps = 1_000;

/// More CPUs than are simulated, with the outside thread and the monitor.
const MAX_CPUS: usize = 320;

/// So many nanoseconds.
pub(crate) fn ns(nanoseconds: f64) -> Ps {
    (nanoseconds.max(0.0) * NS as f64).round() as Ps
}

/// What accesses cost, and where CPUs are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fabric {
    /// A load that hits.
    pub(crate) load: Ps,
    /// A read-modify-write that hits.
    pub(crate) rmw: Ps,
    pub(crate) fence: Ps,
    /// A transfer between CPUs of one cluster (that share a cache), of one socket, and others.
    pub(crate) transfer: [Ps; 3],
    /// CPUs of a cluster; a power of two up to 64.
    pub(crate) cluster: usize,
    /// CPUs of a socket; a multiple of 64.
    pub(crate) socket: usize,
    /// A reader that walks over many lines has so many loads under way.
    pub(crate) overlap: u64,
    /// How long a clean line serves one reader before the next one.
    pub(crate) home: Ps,
    /// A compare-exchange fails if another one succeeded since the read before it. False: none
    /// ever fails, as if each were an addition.
    pub(crate) retries: bool,
}

impl Fabric {
    /// What a transfer between two CPUs costs.
    pub(crate) fn between(&self, a: usize, b: usize) -> Ps {
        if a == b {
            0
        } else if a / self.cluster == b / self.cluster {
            self.transfer[0]
        } else if a / self.socket == b / self.socket {
            self.transfer[1]
        } else {
            self.transfer[2]
        }
    }
}

/// A set of CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cpus([u64; MAX_CPUS / 64]);

impl Cpus {
    fn only(cpu: usize) -> Self {
        let mut cpus = Self::default();
        cpus.add(cpu);
        cpus
    }

    fn add(&mut self, cpu: usize) {
        self.0[cpu / 64] |= 1 << (cpu % 64);
    }

    fn has(&self, cpu: usize) -> bool {
        self.0[cpu / 64] & (1 << (cpu % 64)) != 0
    }

    fn without(mut self, cpu: usize) -> Self {
        self.0[cpu / 64] &= !(1 << (cpu % 64));
        self
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Those in the cluster of this CPU, in its socket, and elsewhere.
    fn by_distance(&self, cpu: usize, fabric: &Fabric) -> [bool; 3] {
        let first = cpu % 64 / fabric.cluster * fabric.cluster;
        let cluster = (u64::MAX >> (64 - fabric.cluster)) << first;
        let sockets = fabric.socket / 64;
        let here = cpu / 64;
        let near = self.0[here] & cluster != 0;
        let mut found = [near, self.0[here] & !cluster != 0, false];
        for (index, word) in self.0.iter().enumerate() {
            if index != here && *word != 0 {
                let same = index / sockets == here / sockets;
                found[if same { 1 } else { 2 }] = true;
            }
        }
        found
    }
}

/// Names a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineId(u32);

#[derive(Clone, Debug)]
struct Line {
    word: Word,
    holders: Cpus,
    dirty: bool,
    /// Goes up with each write.
    version: u32,
    /// The transfers that were asked for so far are done then.
    free_at: Ps,
    /// How long it was moved or written.
    busy: Ps,
}

/// What a word cost so far, over all of its lines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Accesses.
    pub(crate) accesses: u64,
    /// Those that did not find the line.
    pub(crate) misses: u64,
    /// How long CPUs waited for it, beyond what a hit costs.
    pub(crate) stall: Ps,
}

/// All lines.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) fabric: Fabric,
    /// Waits of CPUs from this one on are not counted: helpers.
    helpers: usize,
    lines: Vec<Line>,
    tallies: [Tally; WORDS.len()],
}

impl Lines {
    pub(crate) fn new(fabric: Fabric, helpers: usize) -> Self {
        Self {
            fabric,
            helpers,
            lines: Vec::new(),
            tallies: [Tally::default(); WORDS.len()],
        }
    }

    /// A line for that word, in nobody's cache.
    pub(crate) fn add(&mut self, word: Word) -> LineId {
        self.lines.push(Line {
            word,
            holders: Cpus::default(),
            dirty: false,
            version: 0,
            free_at: 0,
            busy: 0,
        });
        LineId(self.lines.len() as u32 - 1)
    }

    /// Forgets what was counted.
    pub(crate) fn reset(&mut self) {
        self.tallies = [Tally::default(); WORDS.len()];
        for line in &mut self.lines {
            line.busy = 0;
        }
    }

    pub(crate) fn tally(&self, word: Word) -> Tally {
        self.tallies[word as usize]
    }

    /// How long the busiest line of a word was busy.
    pub(crate) fn busiest(&self, word: Word) -> Ps {
        let lines = self.lines.iter().filter(|line| line.word == word);
        lines.map(|line| line.busy).max().unwrap_or(0)
    }

    pub(crate) fn version(&self, id: LineId) -> u32 {
        self.lines[id.0 as usize].version
    }

    /// When a load by `cpu` at `now` is done; `scan`: one of many.
    pub(crate) fn read(&mut self, id: LineId, cpu: usize, now: Ps, scan: bool) -> Ps {
        let fabric = &self.fabric;
        let line = &mut self.lines[id.0 as usize];
        let tally = &mut self.tallies[line.word as usize];
        tally.accesses += 1;
        if line.holders.has(cpu) {
            return now + fabric.load;
        }
        let start = now.max(line.free_at);
        let distance = line.holders.by_distance(cpu, fabric);
        // The first distance at which there is one; a line in no cache comes from near.
        let nearest = distance.iter().position(|there| *there).unwrap_or(0);
        let transfer = fabric.transfer[nearest];
        let held = if line.dirty { transfer } else { fabric.home };
        line.free_at = start + held;
        line.busy += held;
        line.dirty = false;
        line.holders.add(cpu);
        let done = start
            + if scan {
                transfer / fabric.overlap
            } else {
                transfer
            };
        tally.misses += 1;
        if cpu < self.helpers {
            tally.stall += done - now;
        }
        done + fabric.load
    }

    /// When a read-modify-write by `cpu` at `now` is done.
    pub(crate) fn write(&mut self, id: LineId, cpu: usize, now: Ps) -> Ps {
        let version = self.version(id);
        self.exchange(id, cpu, now, version).0
    }

    /// The same for a compare-exchange, and whether it found the version that was expected.
    pub(crate) fn exchange(
        &mut self,
        id: LineId,
        cpu: usize,
        now: Ps,
        expected: u32,
    ) -> (Ps, bool) {
        let fabric = &self.fabric;
        let line = &mut self.lines[id.0 as usize];
        let tally = &mut self.tallies[line.word as usize];
        tally.accesses += 1;
        let others = line.holders.without(cpu);
        let start = now.max(line.free_at);
        let transfer = if others.is_empty() {
            0
        } else {
            tally.misses += 1;
            let distance = others.by_distance(cpu, fabric);
            let furthest = distance.iter().rposition(|there| *there);
            fabric.transfer[furthest.expect("somebody holds it")]
        };
        line.free_at = start + transfer + fabric.rmw;
        line.busy += transfer + fabric.rmw;
        line.holders = Cpus::only(cpu);
        line.dirty = true;
        if cpu < self.helpers {
            tally.stall += start + transfer - now;
        }
        let found = line.version == expected || !fabric.retries;
        line.version = line.version.wrapping_add(u32::from(found));
        (line.free_at, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FABRIC: Fabric = Fabric {
        load: 1,
        rmw: 5,
        fence: 5,
        transfer: [30, 100, 200],
        cluster: 8,
        socket: 128,
        overlap: 4,
        home: 4,
        retries: true,
    };

    fn one() -> (Lines, LineId) {
        let mut lines = Lines::new(FABRIC, 300);
        let id = lines.add(Word::SharedCount);
        (lines, id)
    }

    #[test]
    fn alone_everything_is_a_hit() {
        let (mut lines, id) = one();
        assert_eq!(lines.write(id, 3, 0), 5);
        assert_eq!(lines.write(id, 3, 5), 10);
        assert_eq!(lines.read(id, 3, 10, false), 11);
        assert_eq!(lines.tally(Word::SharedCount).misses, 0);
        assert_eq!(lines.busiest(Word::SharedCount), 10);
    }

    #[test]
    fn distance_is_that_of_the_furthest_for_a_write_and_of_the_nearest_for_a_read() {
        let (mut lines, id) = one();
        lines.write(id, 0, 0);
        assert_eq!(lines.read(id, 200, 1000, false), 1201);
        assert_eq!(lines.read(id, 201, 2000, false), 2031);
        assert_eq!(lines.write(id, 1, 3000), 3205);
        assert_eq!(lines.write(id, 9, 4000), 4105);
    }

    #[test]
    fn transfers_of_one_line_queue_up() {
        let (mut lines, id) = one();
        lines.write(id, 0, 0);
        assert_eq!(lines.write(id, 1, 100), 135);
        assert_eq!(lines.write(id, 2, 100), 170);
        assert_eq!(lines.write(id, 0, 100), 205);
        assert_eq!(lines.tally(Word::SharedCount).stall, 30 + 65 + 100);
    }

    #[test]
    fn a_compare_exchange_fails_after_a_write_and_not_after_one_that_failed() {
        let (mut lines, id) = one();
        lines.read(id, 0, 0, false);
        let seen = lines.version(id);
        assert!(lines.exchange(id, 1, 10, seen).1);
        assert!(!lines.exchange(id, 0, 20, seen).1);
        let seen = lines.version(id);
        assert!(!lines.exchange(id, 1, 30, seen.wrapping_sub(1)).1);
        assert!(lines.exchange(id, 0, 40, seen).1);
    }

    #[test]
    fn readers_of_a_clean_line_hardly_wait_for_each_other() {
        let (mut lines, id) = one();
        lines.read(id, 0, 0, false);
        assert_eq!(lines.read(id, 1, 1000, false), 1031);
        assert_eq!(lines.read(id, 2, 1000, false), 1035);
        assert_eq!(lines.read(id, 3, 1000, true), 1008 + 30 / 4 + 1);
    }

    #[test]
    fn clusters_and_sockets() {
        assert_eq!(FABRIC.between(0, 7), 30);
        assert_eq!(FABRIC.between(0, 8), 100);
        assert_eq!(FABRIC.between(127, 128), 200);
        assert_eq!(FABRIC.between(5, 5), 0);
        let far = Cpus::only(130);
        assert_eq!(far.by_distance(3, &FABRIC), [false, false, true]);
        assert_eq!(far.by_distance(190, &FABRIC), [false, true, false]);
        assert_eq!(far.by_distance(131, &FABRIC), [true, false, false]);
    }
}
