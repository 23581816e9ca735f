//! Basic: user and password in each request, one slow hash for each new pair, none for one seen lately.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;

use crate::audit::{Audit, Event};
use crate::clock::SharedClock;
use crate::handler::Identity;

use super::lockout::{Limit, Locked, Lockout, Share, Who};
use super::password;
use super::throttle::ByNetwork;
use super::users::{self, User, Users};

/// How long a verified pair of user and password is accepted without computing the hash again.
const BELIEVED: Duration = Duration::from_secs(300);

/// Most pairs that are remembered.
const REMEMBERED: usize = 1024;

/// Hashes at one time: each takes 19 MiB and a processor.
const HASHES: usize = 2;

/// Verifies Basic credentials.
pub(super) struct Basic {
    users: Users,
    clock: SharedClock,
    /// Keys the cache, so that it holds nothing from which a password could be guessed.
    key: [u8; 32],
    verified: Mutex<BTreeMap<Tag, Duration>>,
    hashes: Arc<Semaphore>,
    /// One turn for each address, while somebody wants it.
    shares: Mutex<BTreeMap<Share, Arc<Semaphore>>>,
    /// Who may look at the password of somebody who is locked out.
    looks: Arc<Semaphore>,
    lockout: Lockout,
    /// Lines about credentials that cannot be read, which cost no hash.
    unreadable: ByNetwork,
    /// Lines about certificates that are no user's, which cost none either.
    unmapped: ByNetwork,
    /// What an unknown user's password is hashed against, for the same time as a known one's.
    nobody: String,
    #[cfg(test)]
    hashed: std::sync::atomic::AtomicUsize,
}

/// HMAC of name, password and the user's stored hash: a new password or a new user is a new tag.
type Tag = [u8; 32];

/// What is thought of a name and a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    /// It has been counted and told.
    Wrong,
    /// Not looked at.
    Locked,
}

/// Where a guess comes from, and whose it may be.
#[derive(Clone)]
struct From {
    who: Who,
    peer: IpAddr,
    user: Option<Arc<User>>,
}

impl Basic {
    pub(super) fn new(users: Users, limit: Limit, clock: SharedClock) -> Result<Self, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|e| format!("random numbers: {e}"))?;
        let nobody = users::hash(&BASE64_STANDARD.encode(key)).map_err(|e| e.to_string())?;
        Ok(Self {
            users,
            lockout: Lockout::new(limit, clock.clone()),
            clock,
            key,
            verified: Mutex::default(),
            hashes: Arc::new(Semaphore::new(HASHES)),
            shares: Mutex::default(),
            looks: Arc::new(Semaphore::new(1)),
            unreadable: ByNetwork::default(),
            unmapped: ByNetwork::default(),
            nobody,
            #[cfg(test)]
            hashed: Default::default(),
        })
    }

    /// The user whose name and password these are. Who is locked out is answered as if they were wrong,
    /// and costs no hash; names that nobody has are locked out like others, so that tells nothing.
    pub(super) async fn verify(
        basic: &Arc<Self>,
        peer: IpAddr,
        credentials: &str,
        audit: &Audit,
    ) -> Option<Identity> {
        let pair = BASE64_STANDARD.decode(credentials).ok();
        let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
        let Some((name, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else {
            basic.failed_otherwise("malformed", peer, audit).await;
            return None;
        };
        let from = From {
            who: Who::new(name, peer),
            peer,
            user: basic.users.find(name).await,
        };
        match Self::judge(basic, &from, password, audit).await {
            Verdict::Right => basic.lockout.succeeded(&from.who),
            Verdict::Wrong => return None,
            Verdict::Locked => {
                basic.look(peer, from.user, password, audit);
                return None;
            }
        }
        from.user.map(|user| Identity {
            user: Arc::from(user.name.as_str()),
            role: user.role,
        })
    }

    /// Counts a logon that failed for another reason than a wrong password: credentials that cannot be read, a
    /// certificate that is no user's. No hash sets the pace of these, so they are told seldom, and not of an address
    /// that is locked out.
    pub(super) fn failed_otherwise(
        &self,
        reason: &str,
        peer: IpAddr,
        audit: &Audit,
    ) -> impl Future<Output = ()> + Send + use<> {
        let is_locked = self.lockout.is_address_locked(peer);
        let locked = Locked {
            user: false,
            address: !is_locked && self.lockout.failed_otherwise(peer),
        };
        let lines = match reason {
            "nobody" => &self.unmapped,
            _ => &self.unreadable,
        };
        let times = (!is_locked).then(|| lines.happened(peer)).flatten();
        report(None, peer, (reason, times), locked, audit)
    }

    pub(super) const fn lockout(&self) -> &Lockout {
        &self.lockout
    }

    /// Waits for a turn as long as its client does. Once it has one, the password is looked at, and counted, to the
    /// end: whoever hangs up meanwhile has guessed all the same, and its turn is taken until then.
    async fn judge(basic: &Arc<Self>, from: &From, password: &str, audit: &Audit) -> Verdict {
        if basic.lockout.is_locked(&from.who) {
            return Verdict::Locked;
        }
        let user = from.user.as_deref();
        let tag = user.and_then(|user| basic.tag(user, password));
        let is_believed = || tag.is_some_and(|tag| basic.is_believed(&tag));
        if is_believed() {
            return Verdict::Right;
        }
        let turns = (
            basic.own_turns(&from.who).acquire_owned().await,
            Arc::clone(&basic.hashes).acquire_owned().await,
        );
        // Guesses that came at once have waited here together.
        if basic.lockout.is_locked(&from.who) {
            return Verdict::Locked;
        }
        // Many connections of one client open at once: the first has done the work for all.
        if is_believed() {
            return Verdict::Right;
        }
        #[cfg(test)]
        basic
            .hashed
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let stored = user.map_or(&basic.nobody, |user| &user.password);
        let matched = matches(stored.clone(), password.to_owned());
        let (basic, from, audit) = (Arc::clone(basic), from.clone(), audit.clone());
        let judged = tokio::spawn(async move {
            let matched = matched.await;
            if let Some(tag) = tag.filter(|_| matched) {
                basic.remember(tag);
                return Verdict::Right;
            }
            let locked = basic.lockout.failed(&from.who, from.user.is_some());
            // It counts. To tell of it takes as long as the audit file hangs, and that keeps no other password waiting.
            drop(turns);
            let known = from.user.as_ref().map(|user| user.name.as_str());
            let reason = match known {
                Some(_) => "wrong-password",
                None => "unknown-user",
            };
            report(known, from.peer, (reason, Some(1)), locked, &audit).await;
            Verdict::Wrong
        });
        judged.await.unwrap_or(Verdict::Wrong)
    }

    /// Of what comes from one address only one waits among the others: who guesses there keeps nobody else from theirs
    /// for longer than one hash takes. All that a proxy on this host lets through comes from one address, so there each
    /// name waits for itself, and whoever may send many names there keeps others waiting for as many hashes.
    fn own_turns(&self, who: &Who) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        let one = || Arc::new(Semaphore::new(1));
        Arc::clone(shares.entry(who.share()).or_insert_with(one))
    }

    /// Tells the operator whether somebody who is locked out has the right password, and nobody else: the client has
    /// its answer before. One at a time; what comes meanwhile is not looked at.
    fn look(
        self: &Arc<Self>,
        peer: IpAddr,
        user: Option<Arc<User>>,
        password: &str,
        audit: &Audit,
    ) {
        let Ok(turn) = Arc::clone(&self.looks).try_acquire_owned() else {
            return;
        };
        let (looker, audit, password) = (Arc::clone(self), audit.clone(), password.to_owned());
        tokio::spawn(async move {
            let _turn = turn;
            let known = user.as_ref().map(|user| user.name.as_str());
            // Of nobody too: the hash sets the pace of the lines.
            let stored = user.as_ref().map_or(&looker.nobody, |user| &user.password);
            let right = matches(stored.clone(), password).await && user.is_some();
            let reason = match right {
                true => "locked-out-right-password",
                false => "locked-out",
            };
            report(known, peer, (reason, Some(1)), Locked::default(), &audit).await;
        });
    }

    fn tag(&self, user: &User, password: &str) -> Option<Tag> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        for part in [&user.name, password, &user.password] {
            mac.update(&u64::try_from(part.len()).ok()?.to_le_bytes());
            mac.update(part.as_bytes());
        }
        Some(mac.finalize().into_bytes().into())
    }

    fn is_believed(&self, tag: &Tag) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let until = verified.get(tag);
        until.is_some_and(|until| self.clock.elapsed() < *until)
    }

    fn remember(&self, tag: Tag) {
        let now = self.clock.elapsed();
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.retain(|_, until| now < *until);
        }
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(tag, now + BELIEVED);
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.verified.lock().unwrap().len()
    }

    /// How many hashes were computed.
    #[cfg(test)]
    pub(super) fn hashed(&self) -> usize {
        self.hashed.load(std::sync::atomic::Ordering::SeqCst)
    }

    #[cfg(test)]
    pub(super) fn take_all_turns(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.hashes.try_acquire_many(2).unwrap()
    }
}

/// Tells the operator why a logon has failed, how often it has since that was told last (`None`: it is not time to tell
/// it), and what that has locked. A name that nobody has may be anything, a password typed into the wrong field too: it
/// is not told. All of it is told by the time this returns, if only in the log: whoever hangs up while the audit log is
/// waited for suppresses nothing.
fn report(
    user: Option<&str>,
    peer: IpAddr,
    (reason, times): (&str, Option<u64>),
    locked: Locked,
    audit: &Audit,
) -> impl Future<Output = ()> + Send + use<> {
    let (scheme, why) = match reason {
        "nobody" => ("certificate", "the client certificate is no user's"),
        "wrong-password" => ("basic", "wrong password"),
        "unknown-user" => ("basic", "there is no such user"),
        "locked-out" => ("basic", "locked out"),
        "locked-out-right-password" => ("basic", "locked out; the password is right"),
        _ => ("basic", "the credentials cannot be read"),
    };
    let mut lines = Vec::new();
    if let Some(times) = times {
        tracing::warn!(%peer, user, why, times, "Logon failed");
        let event = Event::LogonFailed {
            user,
            scheme,
            reason,
            times,
        };
        lines.push(audit.record(&peer, &event));
    }
    for (is_locked, what) in [(locked.user, "user"), (locked.address, "address")] {
        if is_locked {
            tracing::warn!(%peer, user, what, "Locked out; `groupshot user unlock` ends it at once");
            lines.push(audit.record(&peer, &Event::LockedOut { user, what }));
        }
    }
    async move {
        for line in lines {
            line.await;
        }
    }
}

/// Compares a password with a stored hash, away from the threads that serve.
async fn matches(stored: String, password: String) -> bool {
    let work = move || password::matches(&password, &stored);
    tokio::task::spawn_blocking(work).await.unwrap_or(false)
}

impl std::fmt::Debug for Basic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Basic").finish_non_exhaustive()
    }
}
