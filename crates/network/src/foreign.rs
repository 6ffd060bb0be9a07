//! Other programs' rules that drop what pods send.
//!
//! Sees nftables, and iptables where it is built on it (the default of all current distributions).

use std::path::Path;

use crate::nft::{ChainInfo, Nft, RuleInfo, Verdict};
use crate::{Error, in_netns};

const HOOK_FORWARD: u32 = 2;

/// What drops forwarded packets in the namespace at `netns` (none: the caller's), one sentence each with the
/// remedy for pods on `bridge`: an accept rule of ours cannot override another chain's drop. Empty when
/// nothing is in the way.
pub fn forward_obstacles(netns: Option<&Path>, bridge: &str) -> Result<Vec<String>, Error> {
    let (chains, rules) = in_netns(netns, || {
        let mut nft = Nft::open()?;
        Ok::<_, Error>((nft.chains()?, nft.rules()?))
    })??;
    Ok(judge(&chains, &rules, bridge))
}

fn judge(chains: &[ChainInfo], rules: &[RuleInfo], bridge: &str) -> Vec<String> {
    let obstacle = |chain: &&ChainInfo| {
        let last = rules
            .iter()
            .rfind(|r| (r.family, &r.table, &r.chain) == (chain.family, &chain.table, &chain.name));
        chain.hook == Some(HOOK_FORWARD) && (chain.drop || last.is_some_and(drops_all))
    };
    chains.iter().filter(obstacle).map(|chain| describe(chain, bridge)).collect()
}

/// Whether a rule drops or rejects whatever it is asked about.
fn drops_all(rule: &RuleInfo) -> bool {
    let deciding: Vec<&str> =
        rule.expressions.iter().map(String::as_str).filter(|e| !matches!(*e, "counter" | "log")).collect();
    match deciding[..] {
        ["immediate"] => rule.verdict == Some(Verdict::Drop),
        ["reject"] => true,
        _ => false,
    }
}

fn describe(chain: &ChainInfo, bridge: &str) -> String {
    let place = format!("{} {} {}", chain.family.name(), chain.table, chain.name);
    let program = match (chain.table.as_str(), chain.family.name()) {
        ("firewalld", _) => "firewalld",
        ("filter", "ip" | "ip6") => "iptables (Docker or ufw)",
        _ => "another program",
    };
    let remedy = match program {
        "firewalld" => format!(
            "firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
        ),
        "another program" => {
            format!("accept packets with iifname or oifname {bridge} in that chain")
        }
        _ => {
            let tool = if chain.family.name() == "ip6" { "ip6tables" } else { "iptables" };
            format!("{tool} -I FORWARD -i {bridge} -j ACCEPT && {tool} -I FORWARD -o {bridge} -j ACCEPT")
        }
    };
    format!("{program} drops forwarded packets in chain {place}; pods need: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::Family;

    #[test]
    fn names_who_drops_and_the_remedy() {
        let chain = |family, table: &str, name: &str, hook, drop| ChainInfo {
            family,
            table: table.into(),
            name: name.into(),
            hook: Some(hook),
            drop,
        };
        let rule = |table: &str, chain: &str, expressions: &[&str], verdict| RuleInfo {
            family: Family::Inet,
            table: table.into(),
            chain: chain.into(),
            expressions: expressions.iter().map(|e| (*e).to_owned()).collect(),
            verdict,
        };
        let chains = [
            chain(Family::Ip, "filter", "FORWARD", 2, true),
            chain(Family::Ip, "filter", "INPUT", 1, true),
            chain(Family::Inet, "firewalld", "filter_FORWARD", 2, false),
            chain(Family::Inet, "mine", "forward", 2, false),
        ];
        let rules = [
            rule(
                "firewalld",
                "filter_FORWARD",
                &["ct", "bitwise", "cmp", "immediate"],
                Some(Verdict::Accept),
            ),
            rule("firewalld", "filter_FORWARD", &["reject"], None),
            rule("mine", "forward", &["reject"], None),
            rule("mine", "forward", &["counter", "immediate"], Some(Verdict::Accept)),
        ];
        let found = judge(&chains, &rules, "keelson0");
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(
            found[0]
                .starts_with("iptables (Docker or ufw) drops forwarded packets in chain ip filter FORWARD")
        );
        assert!(found[0].contains("iptables -I FORWARD -i keelson0 -j ACCEPT"));
        assert!(found[1].contains("--add-interface=keelson0"));
    }
}
