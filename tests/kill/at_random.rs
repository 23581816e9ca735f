//! Death at any moment, with several clients at work.

use std::time::Duration;

use crate::support::chance::Chance;
use crate::support::server::Server;
use crate::support::site::{Ground, Image, SIZE, Site};
use crate::support::wire::Wire;

use super::ledger::{Ledger, Refusal};

/// Deaths in a row on one site; then a fresh one, as chains grow with every set.
const IN_A_ROW: usize = 5;
const CLIENTS: usize = 3;

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_random_moments_under_load() {
    let rounds = match std::env::var_os("GROUPSHOT_TEST_LONG") {
        Some(_) => 200,
        None => 5,
    };
    let mut chance = Chance::from_environment();
    let seed = chance.seed;
    for row in 0..usize::div_ceil(rounds, IN_A_ROW) {
        let ground = if row % 2 == 0 {
            Ground::Host
        } else {
            Ground::Xfs
        };
        in_a_row(
            &Site::new(ground),
            &mut chance,
            &format!("seed {seed}, row {row}, {ground:?}"),
        );
    }
}

fn in_a_row(site: &Site, chance: &mut Chance, what: &str) {
    let kinds: [&[Image]; CLIENTS] = [&[Image::Raw], &[Image::Qcow2, Image::Raw], &[Image::Chain]];
    let mut ledgers: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let machine = |n| site.machine(&format!("{client}-{n}"), kinds[client], 1);
            Ledger::new((0..2).map(machine).collect())
        })
        .collect();
    for death in 0..IN_A_ROW {
        let what = format!("{what}, death {death}");
        let mut server = site.serve();
        ledgers = under_load(site, &mut server, ledgers, chance, death);
        let again = [
            "abort.before",
            "undone.before",
            "tops.before",
            "publish.after",
            "clear.before",
        ];
        let again = format!("create.{}=abort", again[chance.below(again.len())]);
        drop(site.try_serve(&[&again])); // which may or may not be passed
        let server = site.serve();
        let wire = Wire::new(&server);
        let mut all = Ledger::default();
        for ledger in &ledgers {
            all.absorb(ledger.clone());
        }
        all.check(site, &wire, &what);
    }
}

/// Lets every client work until the server dies.
fn under_load(
    site: &Site,
    server: &mut Server,
    ledgers: Vec<Ledger>,
    chance: &mut Chance,
    death: usize,
) -> Vec<Ledger> {
    let moment = Duration::from_millis(20 + chance.below(900) as u64);
    let seeds: Vec<_> = (0..CLIENTS)
        .map(|_| chance.below(1 << 30) as u64 | 1)
        .collect();
    let wires: Vec<_> = (0..CLIENTS).map(|_| Wire::new(server)).collect();
    std::thread::scope(|scope| {
        let clients: Vec<_> = ledgers
            .into_iter()
            .zip(wires)
            .zip(seeds)
            .enumerate()
            .map(|(client, ((mut ledger, wire), seed))| {
                scope.spawn(move || {
                    let mut chance = Chance::new(seed);
                    let name = format!("{client}-{death}");
                    if let Err(Refusal::Gone(said)) =
                        work(site, &mut ledger, &wire, &mut chance, &name)
                    {
                        eprintln!("client {name}: {said}");
                    }
                    ledger
                })
            })
            .collect();
        std::thread::sleep(moment);
        server.kill();
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    })
}

/// Groups, writes, takes sets, without end.
fn work(
    site: &Site,
    ledger: &mut Ledger,
    wire: &Wire,
    chance: &mut Chance,
    name: &str,
) -> Result<(), Refusal> {
    let group = ledger.define(wire, name).map_err(Refusal::from)?;
    for round in 0..1000 {
        let offset = chance.below(SIZE / 2);
        let length = 1 + chance.below(SIZE / 2);
        ledger.write(site, offset, length, 1 + chance.below(255) as u8);
        match ledger.take(wire, &group, &format!("{name}-{round:04}")) {
            Ok(()) => {}
            // Chains are as deep as they may be: this client has done its part.
            Err(Refusal::Value(5, why)) if why.contains("chain_cap") => return Ok(()),
            Err(Refusal::Value(value, why)) => panic!("{name}: {value}: {why}"),
            Err(gone) => return Err(gone),
        }
    }
    Ok(())
}
