//! Who a container runs as: `user[:group]` of an image, looked up in the image's own passwd and group.
//!
//! Upstream: containerd's `oci.WithUser`; moby/sys/user.

use crate::LinuxContainerSecurityContext;

/// A process's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory, `/` where passwd knows none.
    pub home: String,
}

/// Works out who a container runs as. `passwd` and `group` are the texts of the image's files.
///
/// # Errors
/// With upstream's words for a name that the files do not have.
pub fn resolve(
    image_user: &str,
    context: &LinuxContainerSecurityContext,
    passwd: &str,
    group: &str,
) -> Result<Identity, String> {
    let (mut user, mut group_name) = match image_user.split_once(':') {
        Some((u, g)) => (u.to_owned(), g.to_owned()),
        None => (image_user.to_owned(), String::new()),
    };
    if let Some(uid) = context.run_as_user {
        (user, group_name) = (uid.to_string(), String::new());
    } else if !context.run_as_username.is_empty() {
        (user, group_name) = (context.run_as_username.clone(), String::new());
    }
    if let Some(gid) = context.run_as_group {
        group_name = gid.to_string();
    }
    if user.is_empty() {
        user = "0".to_owned();
    }
    let users = || passwd.lines().filter_map(Passwd::parse);
    let found = match number(&user)? {
        Some(uid) => users().find(|u| u.uid == uid).unwrap_or(Passwd { name: "", uid, gid: 0, home: "/" }),
        None => users()
            .find(|u| u.name == user)
            .ok_or_else(|| format!("unable to find user {user}: no matching entries in passwd file"))?,
    };
    let mut groups = Vec::new();
    let explicit = !group_name.is_empty();
    let gid = match number(&group_name)? {
        _ if !explicit => found.gid,
        Some(gid) => gid,
        None => {
            group.lines().filter_map(Group::parse).find(|g| g.name == group_name).map(|g| g.gid).ok_or_else(
                || format!("unable to find group {group_name}: no matching entries in group file"),
            )?
        }
    };
    for id in &context.supplemental_groups {
        groups.push(u32::try_from(*id).map_err(|_| format!("group {id} is out of range"))?);
    }
    if !found.name.is_empty() && !context.strict_supplemental_groups {
        let member = |g: &Group<'_>| g.members.split(',').any(|m| m == found.name);
        groups.extend(group.lines().filter_map(Group::parse).filter(member).map(|g| g.gid));
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid: found.uid, gid, groups, home: found.home.to_owned() })
}

/// `Some` for a number, `None` for a name; a number that is no id is an error.
fn number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(format!("id {text} is out of range")),
    }
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Passwd<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut f = line.split(':');
        let name = f.next()?;
        let (uid, gid) = (f.nth(1)?.parse().ok()?, f.next()?.parse().ok()?);
        let home = f.nth(1).filter(|h| !h.is_empty()).unwrap_or("/");
        Some(Passwd { name, uid, gid, home })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut f = line.split(':');
        let name = f.next()?;
        Some(Group { name, gid: f.nth(1)?.parse().ok()?, members: f.next().unwrap_or_default().trim_end() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:w:/srv:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nlogs:x:70:other,web\nweb:x:44:\n";

    #[test]
    fn users_by_name_and_number() {
        let context = |user: Option<i64>, group: Option<i64>| LinuxContainerSecurityContext {
            run_as_user: user,
            run_as_group: group,
            supplemental_groups: vec![9],
            ..Default::default()
        };
        let check = |image: &str, user, group| {
            let i = resolve(image, &context(user, group), PASSWD, GROUP)?;
            Ok::<_, String>((i.uid, i.gid, i.groups, i.home))
        };
        assert_eq!(check("", None, None), Ok((0, 0, vec![9], "/root".into())));
        assert_eq!(check("web", None, None), Ok((33, 44, vec![9, 70], "/srv".into())));
        assert_eq!(check("33:logs", None, None), Ok((33, 70, vec![9, 70], "/srv".into())));
        assert_eq!(check("web", Some(1000), None), Ok((1000, 0, vec![9], "/".into())));
        assert_eq!(check("web", None, Some(5)), Ok((33, 5, vec![9, 70], "/srv".into())));
        assert!(check("nobody", None, None).is_err_and(|e| e.contains("unable to find user nobody")));
        assert!(check("0:nogroup", None, None).is_err());
        assert!(check("4294967295", None, None).is_err());
    }
}
