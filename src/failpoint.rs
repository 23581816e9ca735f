//! Named places in multi-step work at which a test may stop the program or make the step fail.
//!
//! The order comes from the environment variable `GROUPSHOT_FAILPOINTS`, read once at start:
//! comma-separated `name=action` with action `abort` (the process dies as under SIGKILL), `error` (the
//! step fails once) or `hold:PATH`: it writes the name of the point into that file and stands as long as the
//! file is there, five minutes at most. `name` may end in `#N`: the N-th passage, counted from 1. Without
//! the variable a passage costs one atomic load. Operators have no use for it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Between two looks for the file of a `hold`, and how many there are: nothing stands for ever.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS: u32 = 30_000;

/// A step was ordered to fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed on order at {0}")]
pub struct FailedOnOrder(pub String);

impl crate::text::Word for FailedOnOrder {}

/// What happens at a point.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Abort,
    Error,
    Hold(PathBuf),
}

#[derive(Debug)]
struct Order {
    nth: u32,
    action: Action,
}

/// How often each point was passed, and what is ordered there.
type Orders = BTreeMap<String, (u32, Vec<Order>)>;

static ORDERS: OnceLock<Option<Mutex<Orders>>> = OnceLock::new();

/// Passes the point `name`.
///
/// # Errors
/// [`FailedOnOrder`] if this passage was ordered to fail.
pub fn pass(name: &str) -> Result<(), FailedOnOrder> {
    let Some(orders) = ORDERS.get_or_init(from_environment) else {
        return Ok(());
    };
    let action = {
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((passed, orders)) = orders.get_mut(name) else {
            return Ok(());
        };
        *passed += 1;
        let Some(order) = orders.iter().find(|o| o.nth == *passed) else {
            return Ok(());
        };
        order.action.clone()
    };
    match action {
        Action::Abort => {
            // SIGKILL to ourselves: no destructor, no buffer flush, nothing is tidied.
            let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL);
            std::process::abort()
        }
        Action::Error => Err(FailedOnOrder(name.to_owned())),
        Action::Hold(gate) => {
            aside(|| hold(name, &gate));
            Ok(())
        }
    }
}

/// Stands until somebody removes the file `gate`.
fn hold(name: &str, gate: &Path) {
    let told = OpenOptions::new().append(true).open(gate);
    if let Err(error) = told.and_then(|mut file| writeln!(file, "{name}")) {
        tracing::warn!(%error, name, "Nobody is told that the point is reached");
    }
    for _ in 0..LOOKS {
        if !gate.exists() {
            return;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "to stand still on order is what this is for"
        )]
        std::thread::sleep(LOOK);
    }
    tracing::warn!(name, "Nobody opened the gate");
}

/// Runs what takes long where no other task waits for its thread.
fn aside(long: impl FnOnce()) {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(long),
        _ => long(),
    }
}

fn from_environment() -> Option<Mutex<Orders>> {
    let text = std::env::var("GROUPSHOT_FAILPOINTS").ok()?;
    Some(Mutex::new(orders(&text)))
}

fn orders(text: &str) -> Orders {
    let mut orders = Orders::new();
    for (name, order) in text.split(',').filter_map(order) {
        orders.entry(name).or_default().1.push(order);
    }
    orders
}

fn order(text: &str) -> Option<(String, Order)> {
    let (name, action) = text.trim().split_once('=')?;
    let (name, nth) = match name.split_once('#') {
        Some((name, nth)) => (name, nth.parse().ok()?),
        None => (name, 1),
    };
    let action = match action.split_once(':') {
        None if action == "abort" => Action::Abort,
        None if action == "error" => Action::Error,
        Some(("hold", gate)) => Action::Hold(PathBuf::from(gate)),
        _ => return None,
    };
    Some((name.to_owned(), Order { nth, action }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_point_passage_and_action() {
        let (name, order) = order("journal.cut#3=error").unwrap();
        assert_eq!((name.as_str(), order.nth), ("journal.cut", 3));
        assert_eq!(order.action, Action::Error);
        let (_, order) = super::order("journal.cut=hold:/run/gate").unwrap();
        assert_eq!(
            (order.nth, order.action),
            (1, Action::Hold("/run/gate".into()))
        );
        assert!(super::order("journal.cut=explode").is_none());
    }

    #[test]
    fn one_point_takes_an_order_for_each_passage() {
        let orders = orders("cut#1=error,other=abort,cut#3=abort");
        let nth: Vec<_> = orders["cut"].1.iter().map(|o| o.nth).collect();
        assert_eq!((orders.len(), nth), (2, vec![1, 3]));
    }

    #[test]
    fn a_held_point_is_told_of_and_stands_until_its_file_is_gone() {
        let gate = tempfile::NamedTempFile::new().unwrap();
        let path = gate.path().to_owned();
        let holder = std::thread::spawn(move || hold("journal.cut", &path));
        while std::fs::read_to_string(gate.path()).unwrap() != "journal.cut\n" {
            std::thread::yield_now();
        }
        assert!(!holder.is_finished());
        drop(gate);
        holder.join().unwrap();
    }
}
