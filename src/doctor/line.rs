//! How a running server is asked: one JSON object a line each way over a socket in the data directory.
//!
//! ```json
//! {"version":1,"do":"look"}
//! {"version":1,"findings":[…]}
//! {"version":1,"do":"fix","kind":"orphan","object":"…"}
//! {"version":1,"do":"fix","kind":"pending-merge","object":"…","progress":true}
//! {"version":1,"do":"history","failed":true,"limit":50}
//! {"version":1,"do":"unlock","user":"otto"}
//! {"version":1,"do":"renew"}
//! {"version":1,"do":"states"}
//! {"version":1,"states":{"8A3D…":{"state":"running"}}}
//! {"version":1,"do":"remove","machine":"…"}
//! {"version":1,"done":"moved to …"}        or {"version":1,"error":"…"}
//! ```
//!
//! Who wants progress is told it in lines of its own before the answer: `{"version":1,"progress":{"percent":40,"text":"…"}}`.
//! Who says `"beats":true` is told every few seconds that it is still worked on: `{"version":1,"works":15}`.
//!
//! Nothing of it is waited for without end. Each wish but a repair has its time, after which the server answers that it is
//! busy; so it does at once to whoever comes when all places are taken. Who asks gives up when nothing at all is said.
//!
//! The socket is of mode 0600, and whoever connects must be root or the server's own user. It is reached through a
//! descriptor of its folder, so the path of the data directory may be of any length.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::doctor::{Doctor, Finding, FindingKind};
use crate::held::{Folder, Identity};
use crate::id::VmId;
use crate::inventory::{Ended, Query, RunState};
use crate::store;

const VERSION: u32 = 1;
const SOCKET: &str = "groupshot.sock";
/// Longest request, bytes.
const LONGEST: u64 = 64 << 10;
/// Longest answer that is read, bytes.
const LONGEST_ANSWER: u64 = 64 << 20;
/// Requests that are answered at the same time.
const AT_ONCE: usize = 16;
/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often somebody who waits is told that it is still worked on.
const BEAT: Duration = Duration::from_secs(5);
/// A server that has said nothing for so long does not answer.
const SILENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    version: u32,
    /// Whether it is to be told that it is still worked on.
    #[serde(default)]
    beats: bool,
    #[serde(flatten)]
    wish: Wish,
}

/// What is wished for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Wish {
    /// Everything that is found.
    Look,
    /// One repair.
    Fix {
        /// Of this kind.
        kind: FindingKind,
        /// The object of the finding.
        object: String,
        /// Whether its progress is to be told.
        #[serde(default)]
        progress: bool,
    },
    /// How operations ended.
    History(Query),
    /// Ends lock-outs.
    Unlock(Unlock),
    /// That the library is read again at once: something was changed there.
    Renew,
    /// Whether the machines run.
    States,
    /// That a machine leaves the library.
    Remove {
        /// Which one.
        machine: VmId,
    },
}

impl Wish {
    /// How long it may take; a repair tells how far it is, and may take as long as it does.
    const fn limit(&self) -> Option<Duration> {
        match self {
            Self::Look => Some(Duration::from_secs(300)),
            Self::Fix { .. } => None,
            Self::History(_) | Self::Renew | Self::Remove { .. } => Some(Duration::from_secs(60)),
            Self::Unlock(_) | Self::States => Some(Duration::from_secs(20)),
        }
    }
}

/// Which lock-outs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Unlock {
    /// Those of this user, at all addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// That of this address, and those of all users at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// How far a repair is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// In hundredths.
    pub percent: u8,
    /// What it is at, in words.
    pub text: String,
}

/// What a machine does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doing {
    /// The word for its state.
    pub state: String,
    /// The trouble that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<RunState> for Doing {
    fn from(state: RunState) -> Self {
        Self {
            state: state.word().to_owned(),
            reason: state.trouble().map(str::to_owned),
        }
    }
}

/// Where the progress of a repair is told; the newest counts.
pub type Tell = watch::Sender<Option<Progress>>;

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    version: u32,
    #[serde(flatten)]
    answer: Answer,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// What was found.
    Findings(Vec<Finding>),
    /// How operations ended, the newest first.
    History(Vec<Ended>),
    /// The addresses at which something was locked out.
    Unlocked(Vec<String>),
    /// Whether the machines run.
    States(BTreeMap<VmId, Doing>),
    /// How far it is; the answer is still to come.
    Progress(Progress),
    /// For so many seconds it has been worked on; the answer is still to come.
    Works(u64),
    /// What was done.
    Done(String),
    /// Why not.
    Error(String),
}

impl Doctor {
    /// Does what is wished, and tells how far it is.
    pub async fn answer(self: &Arc<Self>, wish: Wish, tell: &Tell) -> Answer {
        match wish {
            Wish::Look => Answer::Findings(self.look().await),
            Wish::Fix { kind, object, .. } => match self.fix(kind, &object, tell).await {
                Ok(done) => Answer::Done(done),
                Err(why) => Answer::Error(why),
            },
            Wish::History(query) => {
                let deps = &self.deps;
                match store::look_back(&*deps.store, &query, deps.clock.now()).await {
                    Ok(found) => Answer::History(found),
                    Err(error) => Answer::Error(error.to_string()),
                }
            }
            Wish::Unlock(wish) => match &self.deps.logons {
                Some(logons) => match logons.unlock(wish.user.as_deref(), wish.address).await {
                    Ok(at) => Answer::Unlocked(at.iter().map(ToString::to_string).collect()),
                    Err(why) => Answer::Error(why.english()),
                },
                None => Answer::Unlocked(Vec::new()),
            },
            Wish::Renew => {
                let doctor = Arc::clone(self);
                let renewed = tokio::task::spawn_blocking(move || drop((doctor.deps.library)()));
                match renewed.await {
                    Ok(()) => Answer::Done("the library was read again".to_owned()),
                    Err(error) => Answer::Error(error.to_string()),
                }
            }
            Wish::States => {
                let compute = &self.deps.compute;
                compute.looked().await;
                let observed = compute.observed();
                let state = |id: &VmId| (*id, Doing::from(observed.state(*id)));
                Answer::States(observed.machines.keys().map(state).collect())
            }
            Wish::Remove { machine } => match self.remove(machine).await {
                Ok(()) => Answer::Done(format!("machine {machine} removed")),
                Err(why) => Answer::Error(why),
            },
        }
    }
}

/// The socket of a server, open. Removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: tokio::net::UnixListener,
    folder: Folder,
    /// What it was made as.
    made: Identity,
}

impl Socket {
    /// Opens the socket of the data directory, which nobody else serves: one that is there is of a dead process.
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = Folder::follow(data_dir)?;
        let (listener, made) = folder.listen(SOCKET, 0o600)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        Ok(Self {
            listener,
            folder,
            made,
        })
    }

    /// Answers until `stop`: a repair that takes long keeps nobody else waiting.
    pub async fn serve(self, doctor: Arc<Doctor>, stop: CancellationToken) {
        let mut talks = JoinSet::new();
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            let Ok((stream, _)) = accepted else {
                // No descriptor left, as a rule.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            while talks.try_join_next().is_some() {}
            if talks.len() >= AT_ONCE {
                turn_away(&stream);
                continue;
            }
            let doctor = Arc::clone(&doctor);
            talks.spawn(async move {
                if let Err(error) = talk(stream, &doctor).await {
                    tracing::debug!(%error, "A check-up was not asked for to the end");
                }
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = self.folder.remove_socket(SOCKET, &self.made);
    }
}

/// Says that there is no place, to whoever reads it at once.
fn turn_away(stream: &tokio::net::UnixStream) {
    let busy = Answer::Error(format!(
        "the server is busy with {AT_ONCE} other requests of this kind; try again when they are answered"
    ));
    if let Ok(line) = line(busy) {
        let _not_heard = stream.try_write(&line);
    }
}

async fn talk(stream: tokio::net::UnixStream, doctor: &Arc<Doctor>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (from, mut to) = stream.into_split();
    let mut line = String::new();
    let mut from = tokio::io::BufReader::new(from.take(LONGEST));
    tokio::time::timeout(PATIENCE, from.read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) if request.version == VERSION => {
            carry_out(request.wish, request.beats, doctor, &mut to).await
        }
        Ok(request) => Answer::Error(format!(
            "this server speaks version {VERSION} of the check-up, not {}",
            request.version
        )),
        Err(error) => Answer::Error(format!("the request makes no sense: {error}")),
    };
    say(&mut to, answer).await?;
    to.shutdown().await
}

/// Has it done; tells how far it is meanwhile, if that is wanted and as long as somebody hears it.
async fn carry_out(
    wish: Wish,
    beats: bool,
    doctor: &Arc<Doctor>,
    to: &mut OwnedWriteHalf,
) -> Answer {
    let wanted = matches!(wish, Wish::Fix { progress: true, .. });
    let (tell, mut told) = watch::channel(None);
    let working = async move {
        let limit = wish.limit().unwrap_or(Duration::MAX);
        let answer = tokio::time::timeout(limit, doctor.answer(wish, &tell)).await;
        drop(tell);
        answer.unwrap_or_else(|_| {
            Answer::Error(format!(
                "the server is busy: this was not done within {} s, and may still be; its log may tell what it waits for",
                limit.as_secs()
            ))
        })
    };
    // Beside the work: whoever does not read holds up nothing but what is told.
    let telling = telling(&mut told, (wanted, beats), to);
    let (answer, _heard) = tokio::join!(working, telling);
    answer
}

/// Says how far the work is, and that it is still worked on, each where that is wanted, until it has ended.
async fn telling(
    told: &mut watch::Receiver<Option<Progress>>,
    (progress, beats): (bool, bool),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut seconds = 0;
    let mut beat = tokio::time::interval(BEAT);
    beat.reset();
    loop {
        tokio::select! {
            changed = told.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = told.borrow_and_update().clone();
                if let Some(now) = now.filter(|_| progress) {
                    say(to, Answer::Progress(now)).await?;
                }
            }
            _ = beat.tick() => {
                seconds += BEAT.as_secs();
                if beats {
                    say(to, Answer::Works(seconds)).await?;
                }
            }
        }
    }
}

async fn say(to: &mut (impl AsyncWrite + Unpin), answer: Answer) -> io::Result<()> {
    let line = line(answer)?;
    tokio::time::timeout(PATIENCE, to.write_all(&line)).await?
}

fn line(answer: Answer) -> io::Result<Vec<u8>> {
    let reply = Reply {
        version: VERSION,
        answer,
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    Ok(line)
}

/// Asks the server of a data directory. Blocks until it has answered, or says nothing any more, and tells how far it is
/// meanwhile.
///
/// # Errors
/// None answers there, or not as expected; it names the socket.
pub fn ask(data_dir: &Path, wish: Wish, tell: &Tell) -> io::Result<Answer> {
    let socket = data_dir.join(SOCKET);
    asked(data_dir, wish, tell, SILENCE).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => format!(
                "the server has not answered within {} s: it hangs; its log may tell where, and SIGTERM ends it whatever hangs",
                SILENCE.as_secs()
            ),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("{}: {why}", socket.display()))
    })
}

/// Whether a server of the data directory can be asked.
#[must_use]
pub fn is_answered(data_dir: &Path) -> bool {
    connect(data_dir, SILENCE).is_ok()
}

/// [`ask`] of a server that may say nothing for so long.
fn asked(data_dir: &Path, wish: Wish, tell: &Tell, silence: Duration) -> io::Result<Answer> {
    let limit = wish.limit();
    let mut stream = connect(data_dir, silence)?;
    stream.set_read_timeout(Some(silence))?;
    stream.set_write_timeout(Some(silence))?;
    let request = Request {
        version: VERSION,
        beats: true,
        wish,
    };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    // Who is turned away is told so, and may find nobody who reads.
    let mut written = stream.write_all(&line);
    let mut from = BufReader::new(stream);
    loop {
        let mut line = String::new();
        from.by_ref().take(LONGEST_ANSWER).read_line(&mut line)?;
        if line.is_empty() {
            written?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        written = Ok(());
        match serde_json::from_str::<Reply>(&line)?.answer {
            Answer::Progress(now) => drop(tell.send_replace(Some(now))),
            // Longer than it gives itself: something of it hangs.
            Answer::Works(seconds) if limit.is_some_and(|l| seconds > (l + silence).as_secs()) => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Answer::Works(_) => {}
            answer => return Ok(answer),
        }
    }
}

/// To the socket; a server that accepts nobody any more keeps whoever comes waiting.
fn connect(data_dir: &Path, silence: Duration) -> io::Result<UnixStream> {
    // Short wherever the folder lies, as long as its descriptor is open.
    let folder = Folder::follow(data_dir)?;
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let _given_up = tell.send(UnixStream::connect(folder.place(SOCKET)));
    });
    let connected = told.recv_timeout(silence);
    connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    #[tokio::test(start_paused = true)]
    async fn progress_that_nobody_wants_keeps_no_beat_back() {
        let (tell, mut told) = watch::channel(None);
        let working = async move {
            for percent in 0..60 {
                let text = "merging".to_owned();
                tell.send_replace(Some(Progress { percent, text }));
                tokio::time::sleep(SOON).await;
            }
        };
        let mut said = Vec::new();
        let telling = telling(&mut told, (false, true), &mut said);
        let ((), ended) = tokio::join!(working, telling);
        ended.unwrap();
        let beat = |seconds| line(Answer::Works(seconds)).unwrap();
        assert_eq!(said, [beat(5), beat(10)].concat());
    }

    #[test]
    fn who_says_nothing_is_given_up_and_who_is_at_work_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let limit = Wish::Renew.limit().unwrap();
        let serving = thread::spawn(move || {
            let (silent, _) = listener.accept().unwrap();
            let (mut works, _) = listener.accept().unwrap();
            for second in 0..limit.as_secs() {
                works
                    .write_all(&line(Answer::Works(second)).unwrap())
                    .unwrap();
            }
            let done = line(Answer::Done("well".to_owned())).unwrap();
            works.write_all(&done).unwrap();
            let (mut hangs, _) = listener.accept().unwrap();
            let beyond = (limit + 2 * SILENCE).as_secs();
            let said = line(Answer::Works(beyond)).unwrap();
            hangs.write_all(&said).unwrap();
            // They are closed only when nobody waits for them.
            (silent, works, hangs)
        });
        let tell = Tell::new(None);
        let ask = |silence| asked(dir.path(), Wish::Renew, &tell, silence);
        let error = ask(Duration::from_secs(3)).unwrap_err();
        let given_up = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
        assert!(given_up.contains(&error.kind()), "{error}");
        assert!(matches!(ask(SILENCE).unwrap(), Answer::Done(_)));
        let error = ask(SILENCE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        drop(serving.join().unwrap());
    }
}
