//! `groupshot collection …`: groups of machines, over WS-Management.

use std::collections::BTreeSet;

use clap::Subcommand;
use serde_json::json;

use crate::cim::{Path, Value};
use crate::client::{Client, Object};
use crate::id::VmId;
use crate::text::catalog::provider::GROUP_GONE;

use super::failure::Failure;
use super::naming::pick;
use super::output::{Output, count, one_line, table};
use super::remote::{
    COLLECTION, GROUPS, MACHINE, NAMESPACE, ObjectKind, Remote, all, find, find_each, reference,
    sendable, service,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a collection, with members if any are named.
    Create {
        #[command(flatten)]
        remote: Remote,
        /// Its name.
        name: String,
        /// Virtual machines, by name or id (with --groups: collections).
        members: Vec<String>,
        /// A collection of collections.
        #[arg(long)]
        groups: bool,
        /// Also if there is a collection of that name.
        #[arg(long)]
        allow_duplicate: bool,
    },
    /// Add members to a collection.
    Add(Members),
    /// Take members out of a collection.
    Remove(Members),
    /// Show the collections.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Delete a collection; its machines and snapshot sets stay.
    Delete {
        #[command(flatten)]
        remote: Remote,
        /// Name or id.
        collection: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Members {
    #[command(flatten)]
    remote: Remote,
    /// Name or id of the collection.
    collection: String,
    /// Names or ids of the members.
    #[arg(required = true)]
    members: Vec<String>,
}

const SERVICE: &str = "Msvm_CollectionManagementService";
const REMOVE: &str = "RemoveMember";
/// Which collection is a member of which.
const LINKS: &str = "Msvm_CollectedCollections";

pub(super) async fn run(command: Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Create {
            remote,
            name,
            members,
            groups,
            allow_duplicate,
        } => {
            sendable("name", &name)?;
            let client = remote.client()?;
            if !allow_duplicate {
                is_new(&client, &name).await?;
            }
            create(&client, &name, &members, groups, output).await
        }
        Command::Add(members) => change(&members, "AddMember", "added to", output).await,
        Command::Remove(members) => change(&members, REMOVE, "removed from", output).await,
        Command::List { remote } => list(&remote.client()?, output).await,
        Command::Delete { remote, collection } => {
            delete(&remote.client()?, &collection, output).await
        }
    }
}

/// Refuses a name that a collection has.
async fn is_new(client: &Client, name: &str) -> Result<(), Failure> {
    let all = all(client, COLLECTION).await?;
    match all.iter().find(|c| c.text("ElementName") == name) {
        None => Ok(()),
        Some(same) => Err(Failure::failed(format_args!(
            "there is a collection `{}` already, {}; another one of that name needs --allow-duplicate",
            one_line(name),
            same.text(COLLECTION.key)
        ))),
    }
}

async fn create(
    client: &Client,
    name: &str,
    members: &[String],
    groups: bool,
    output: &Output,
) -> Result<(), Failure> {
    let kind = if groups { COLLECTION } else { MACHINE };
    // Looked up first: a wrong name must not leave half a collection.
    let found = find_each(client, kind, members).await?.into_iter();
    let found = found.map(|object| Ok(reference(kind, &object?)));
    let mut found = found.collect::<Result<Vec<_>, Failure>>()?;
    // Whoever is named twice is one member.
    let mut seen = BTreeSet::new();
    found.retain(|member| seen.insert(member.text(kind.key).map(str::to_owned)));
    let collection = define(client, name, groups).await?;
    let members = found.len();
    let id = collection.text("CollectionID").unwrap_or_default();
    for member in found {
        let of = ("Collection", Value::from(collection.clone()));
        let added = call(
            client,
            "AddMember",
            &[("Member", member.into()), of.clone()],
        )
        .await;
        let Err(failure) = added else {
            continue;
        };
        // All of it or nothing.
        return Err(match call(client, "DestroyCollection", &[of]).await {
            Ok(_) => failure,
            Err(_) => Failure::new(
                failure.exit,
                format_args!(
                    "{}; collection `{}` {id} was made, not with all members: add them with `groupshot collection \
                     add {id} …`, or delete it",
                    failure.message,
                    one_line(name)
                ),
            ),
        });
    }
    output.result(json!({"id": id, "name": name}), || {
        format!(
            "collection `{}` {id} with {}",
            one_line(name),
            count(members, "member")
        )
    })
}

/// Defines a collection on the server; the reference to it.
pub(super) async fn define(client: &Client, name: &str, groups: bool) -> Result<Path, Failure> {
    let kind = if groups { "1" } else { "0" };
    let answer = call(
        client,
        "DefineCollection",
        &[("Name", name.into()), ("Type", kind.into())],
    )
    .await?;
    let reference = answer.get("DefinedCollection").as_reference().cloned();
    reference.ok_or_else(|| Failure::failed("the server named no collection in its answer"))
}

async fn change(
    members: &Members,
    method: &str,
    done: &str,
    output: &Output,
) -> Result<(), Failure> {
    let client = members.remote.client()?;
    let collection = find(&client, COLLECTION, &members.collection).await?;
    let kind = member_kind(&collection);
    let found = find_each(&client, kind, &members.members).await?;
    let gone = match method == REMOVE && kind.class == MACHINE.class {
        true => gone(collection.text("Description")),
        false => Vec::new(),
    };
    for (name, found) in members.members.iter().zip(found) {
        // A machine that left the library may still be a member, known by its id only.
        let begun = pick(&gone, name, kind.word, |id| {
            ((*id).to_owned(), String::new())
        })?;
        let id = match (begun, name.parse::<VmId>()) {
            (Some(id), _) => Some((*id).to_owned()),
            (None, Ok(id)) if method == REMOVE && kind.class == MACHINE.class => {
                Some(id.to_string())
            }
            (None, _) => None,
        };
        let member = match (found, id) {
            // By the beginning of its id alone.
            (Ok(found), Some(id)) if !is_named(&found, kind, name) => {
                return Err(Failure::failed(format_args!(
                    "`{}` begins the ids of 2 {}s; give the id of one: {}, {id}",
                    one_line(name),
                    kind.word,
                    found.text(kind.key)
                )));
            }
            (Ok(found), _) => reference(kind, &found),
            (Err(_), Some(id)) => Path::new(NAMESPACE, kind.class)
                .key("CreationClassName", kind.class)
                .key(kind.key, id.as_str()),
            (Err(failure), None) => return Err(failure),
        };
        call(
            &client,
            method,
            &[
                ("Member", member.into()),
                ("Collection", reference(COLLECTION, &collection).into()),
            ],
        )
        .await?;
        output.note(format_args!(
            "{} `{}` {done} `{}`",
            kind.word,
            one_line(name),
            one_line(&members.collection)
        ));
    }
    let id = collection.text(COLLECTION.key);
    output.result(json!({"id": id, "members": members.members}), String::new)
}

/// By its id or its name.
fn is_named(object: &Object, kind: ObjectKind, name: &str) -> bool {
    let id = name.trim_matches(['{', '}']);
    object.text("ElementName") == name || object.text(kind.key).eq_ignore_ascii_case(id)
}

async fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let collections = all(client, COLLECTION).await?;
    let mut links = client
        .enumerate(NAMESPACE, "Msvm_CollectedVirtualSystems")
        .await?;
    links.append(&mut client.enumerate(NAMESPACE, LINKS).await?);
    let members_of = |id: &str| -> Vec<String> {
        let of = links
            .iter()
            .filter(|l| end(l, "Collection", COLLECTION.key) == Some(id));
        of.filter_map(|l| end(l, "Member", "Name").or(end(l, "Member", COLLECTION.key)))
            .map(str::to_owned)
            .collect()
    };
    let mut rows = vec![["NAME", "ID", "OF", "MEMBERS"].map(str::to_owned).to_vec()];
    let mut objects = Vec::new();
    for collection in &collections {
        let (id, name) = (
            collection.text(COLLECTION.key),
            collection.text("ElementName"),
        );
        let of = member_kind(collection).word;
        let gone = gone(collection.text("Description"));
        let mut members = members_of(id);
        members.retain(|m| !gone.contains(&m.as_str()));
        let number = match gone.len() {
            0 => members.len().to_string(),
            n => format!("{} and {n} gone: {}", members.len(), gone.join(", ")),
        };
        rows.push(vec![name.into(), id.into(), of.into(), number]);
        objects.push(json!({
            "id": id, "name": name, "of": of, "members": members, "gone": gone,
        }));
    }
    output.result(json!({"collections": objects}), || table(&rows))
}

/// The ids of members that no longer exist, as our server tells them.
fn gone(description: &str) -> Vec<&str> {
    let told = GROUP_GONE.en_us.split('{').next().unwrap_or_default();
    let ids = description.strip_prefix(told);
    let ids = ids.into_iter().flat_map(|ids| ids.split(", "));
    ids.filter(|id| id.parse::<VmId>().is_ok()).collect()
}

async fn delete(client: &Client, name: &str, output: &Output) -> Result<(), Failure> {
    let collection = find(client, COLLECTION, name).await?;
    let id = collection.text(COLLECTION.key);
    // Asked before: afterwards nothing tells of it any more.
    let groups = groups_of(client, id).await?;
    let target = reference(COLLECTION, &collection);
    call(
        client,
        "DestroyCollection",
        &[("Collection", target.into())],
    )
    .await?;
    for group in &groups {
        let (group, of) = (group.text("ElementName"), group.text(COLLECTION.key));
        let group = one_line(group);
        output.note(format_args!("it was a member of `{group}` {of}"));
    }
    let groups: Vec<_> = groups.iter().map(|g| g.text(COLLECTION.key)).collect();
    output.result(json!({"id": id, "groups": groups}), || {
        format!("collection `{}` {id} deleted", one_line(name))
    })
}

/// The collections of collections that the collection is a member of.
async fn groups_of(client: &Client, id: &str) -> Result<Vec<Object>, Failure> {
    let mut groups = Vec::new();
    for link in client.enumerate(NAMESPACE, LINKS).await? {
        if end(&link, "Member", COLLECTION.key) == Some(id)
            && let Some(group) = link.get("Collection").as_reference()
        {
            groups.push(client.get(group).await?);
        }
    }
    Ok(groups)
}

/// Calls a method of the service; a return value other than 0 is a failure.
pub(super) async fn call(
    client: &Client,
    method: &str,
    arguments: &[(&str, Value)],
) -> Result<Object, Failure> {
    super::call::accepted(client, &service(SERVICE), method, arguments, &[0]).await
}

fn member_kind(collection: &Object) -> ObjectKind {
    match collection.class == GROUPS {
        true => COLLECTION,
        false => MACHINE,
    }
}

/// The key of one end of an association.
pub(super) fn end<'a>(link: &'a Object, role: &str, key: &str) -> Option<&'a str> {
    link.get(role).as_reference()?.text(key)
}
