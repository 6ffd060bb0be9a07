//! The atomic batch: messages that take effect together.

use super::expr::encode_verdict;
use super::{Base, ChainKind, Expr, Family, Hook, Set, Table, Value, ValueType, padded_len, type_number};
use crate::netlink::{Messages, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};

pub(super) const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const DEL_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DEL_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const DEL_SET: u16 = SUBSYSTEM | 11;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const DEL_ELEMENT: u16 = SUBSYSTEM | 14;

const SET_FLAG_MAP: u32 = 0x8;
const SET_FLAG_TIMEOUT: u32 = 0x10;
const SET_FLAG_EVAL: u32 = 0x20;
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
/// Elements of one message: the list is one attribute, whose length field has 16 bits.
const ELEMENT_BYTES_MAX: usize = 60_000;
const LIST_ELEMENT: u16 = 1;
const BEGIN_SEQ: u32 = 1;

/// Changes that the kernel makes all together or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    messages: Messages,
    /// What each message is about; the first has sequence number `BEGIN_SEQ + 1`.
    objects: Vec<String>,
    sets: u32,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Batch {
        let mut messages = Messages::default();
        // The last two bytes of the fixed header name the subsystem, in network order.
        messages.begin(BATCH_BEGIN, 0, BEGIN_SEQ, &[0, 0, 0, 10]);
        messages.end();
        Batch { messages, objects: Vec::new(), sets: 0 }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// How many messages there are, and how many bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.objects.len(), self.messages.as_bytes().len())
    }

    /// Makes a table, unless there is one of that name.
    pub fn add_table(&mut self, family: Family, name: &str) {
        self.push(NEW_TABLE, NLM_F_CREATE, family, format!("table {} {name}", family.name()), |m| {
            m.attr_str(1, name);
            m.attr_be32(2, 0);
        });
    }

    /// Removes a table with all it holds.
    pub fn delete_table(&mut self, family: Family, name: &str) {
        let object = format!("deletion of table {} {name}", family.name());
        self.push(DEL_TABLE, 0, family, object, |m| m.attr_str(1, name));
    }

    /// Makes a chain.
    pub fn add_chain(&mut self, table: &Table, name: &str, base: Option<Base>) {
        self.push(NEW_CHAIN, NLM_F_CREATE, table.family, object("chain", table, name), |m| {
            m.attr_str(1, &table.name);
            m.attr_str(3, name);
            let Some(base) = base else { return };
            m.nest(4, |m| {
                m.attr_be32(1, hook_number(base.hook));
                m.attr_be32(2, base.priority as u32);
            });
            m.attr_be32(5, u32::from(!base.drop));
            m.attr_str(7, if base.kind == ChainKind::Nat { "nat" } else { "filter" });
        });
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, table: &Table, name: &str) {
        self.push(DEL_RULE, 0, table.family, object("rules of chain", table, name), |m| {
            m.attr_str(1, &table.name);
            m.attr_str(2, name);
        });
    }

    /// Removes a chain that has no rules and that nothing names.
    pub fn delete_chain(&mut self, table: &Table, name: &str) {
        self.push(DEL_CHAIN, 0, table.family, object("deletion of chain", table, name), |m| {
            m.attr_str(1, &table.name);
            m.attr_str(3, name);
        });
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(&mut self, table: &Table, chain: &str, rule: &[Expr]) {
        let names: Vec<&str> = rule.iter().map(Expr::name).collect();
        let object = format!("{}: rule {}", object("chain", table, chain), names.join(" "));
        self.push(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, table.family, object, |m| {
            m.attr_str(1, &table.name);
            m.attr_str(2, chain);
            m.nest(4, |m| {
                for expr in rule {
                    m.nest(LIST_ELEMENT, |m| expr.encode(m));
                }
            });
        });
    }

    /// Makes an empty set or map.
    pub fn add_set(&mut self, table: &Table, name: &str, set: &Set) {
        self.sets += 1;
        let id = self.sets;
        let mut flags = 0;
        if set.value != ValueType::Nothing {
            flags |= SET_FLAG_MAP;
        }
        if set.dynamic.is_some() {
            flags |= SET_FLAG_TIMEOUT | SET_FLAG_EVAL;
        }
        self.push(NEW_SET, NLM_F_CREATE, table.family, object("set", table, name), |m| {
            m.attr_str(1, &table.name);
            m.attr_str(2, name);
            m.attr_be32(3, flags);
            m.attr_be32(4, type_number(&set.key));
            m.attr_be32(5, padded_len(&set.key));
            match &set.value {
                ValueType::Nothing => {}
                ValueType::Verdict => {
                    m.attr_be32(6, DATA_TYPE_VERDICT);
                    m.attr_be32(7, 0);
                }
                ValueType::Data(parts) => {
                    m.attr_be32(6, type_number(parts));
                    m.attr_be32(7, padded_len(parts));
                }
            }
            // No description of the concatenation: the kernel takes it only for interval sets.
            if let Some(dynamic) = set.dynamic {
                m.nest(9, |m| m.attr_be32(1, dynamic.size));
            }
            m.attr_be32(10, id);
            if let Some(dynamic) = set.dynamic {
                m.attr_be64(11, dynamic.timeout_ms);
            }
        });
    }

    /// Removes a set or map that no rule names.
    pub fn delete_set(&mut self, table: &Table, name: &str) {
        self.push(DEL_SET, 0, table.family, object("deletion of set", table, name), |m| {
            m.attr_str(1, &table.name);
            m.attr_str(2, name);
        });
    }

    /// Adds elements, in as many messages as their number needs.
    pub fn add_elements<'a>(
        &mut self,
        table: &Table,
        set: &str,
        elements: impl Iterator<Item = (&'a Vec<u8>, &'a Value)>,
    ) {
        self.elements(NEW_ELEMENT, NLM_F_CREATE, table, set, elements.map(|(k, v)| (k.as_slice(), v)));
    }

    /// Removes elements, which must be there.
    pub fn delete_elements<'a>(&mut self, table: &Table, set: &str, keys: impl Iterator<Item = &'a [u8]>) {
        self.elements(DEL_ELEMENT, 0, table, set, keys.map(|k| (k, &Value::Nothing)));
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        table: &Table,
        set: &str,
        elements: impl Iterator<Item = (&'a [u8], &'a Value)>,
    ) {
        let verb = if kind == NEW_ELEMENT { "elements of set" } else { "deletion of elements of set" };
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            self.push(kind, flags, table.family, object(verb, table, set), |m| {
                m.attr_str(1, &table.name);
                m.attr_str(2, set);
                m.nest(3, |m| {
                    while m.message_len() < ELEMENT_BYTES_MAX {
                        let Some((key, value)) = elements.next() else { break };
                        m.nest(LIST_ELEMENT, |m| encode_element(m, key, value));
                    }
                });
            });
        }
    }

    fn push(&mut self, kind: u16, flags: u16, family: Family, object: String, f: impl FnOnce(&mut Messages)) {
        self.objects.push(object);
        let seq = BEGIN_SEQ + self.objects.len() as u32;
        self.messages.begin(kind, flags, seq, &[family.number(), 0, 0, 0]);
        f(&mut self.messages);
        self.messages.end();
    }

    /// The finished batch and the sequence number that will be acknowledged. Only the last change asks for it:
    /// one acknowledgement per object would overflow the queue, and older kernels ignore the flag on the end.
    pub(super) fn finish(&self) -> (Messages, u32) {
        let mut messages = self.messages.clone();
        messages.add_flags(NLM_F_ACK);
        let last = BEGIN_SEQ + self.objects.len() as u32;
        messages.begin(BATCH_END, 0, last + 1, &[0, 0, 0, 10]);
        messages.end();
        (messages, last)
    }

    /// What the message with that sequence number was about.
    pub(super) fn object(&self, seq: u32) -> &str {
        let at = (seq as usize).checked_sub(BEGIN_SEQ as usize + 1);
        at.and_then(|at| self.objects.get(at)).map_or("the batch", String::as_str)
    }
}

fn object(kind: &str, table: &Table, name: &str) -> String {
    format!("{kind} {} {} {name}", table.family.name(), table.name)
}

fn encode_element(m: &mut Messages, key: &[u8], value: &Value) {
    m.nest(1, |m| m.attr(1, key));
    match value {
        Value::Nothing => {}
        Value::Verdict(verdict) => m.nest(2, |m| encode_verdict(m, verdict)),
        Value::Data(bytes) => m.nest(2, |m| m.attr(1, bytes)),
    }
}

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chain, Key, Type, Verdict};
    use super::*;
    use crate::netlink::attribute;

    #[test]
    #[rustfmt::skip]
    fn a_table_byte_by_byte() {
        let mut batch = Batch::new();
        batch.add_table(Family::Ip, "t");
        let (messages, last) = batch.finish();
        assert_eq!(last, 2);
        assert_eq!(messages.as_bytes(), [
            20, 0, 0, 0, 0x10, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
            36, 0, 0, 0, 0, 10, 5, 4, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0,
            6, 0, 1, 0, b't', 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 0,
            20, 0, 0, 0, 0x11, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
        ]);
    }

    #[test]
    fn element_lists_stay_below_64_kib_and_lose_nothing() {
        let table = Table::new(Family::Ip, "t");
        let mut set = Set::new(vec![Type::Ipv4, Type::Mark], ValueType::Verdict);
        for n in 0..5000u32 {
            let key = Key::default().address([10, 0, 0, 1].into()).mark(n).build();
            set.elements.insert(key, Value::Verdict(Verdict::Goto("some-chain".into())));
        }
        let mut batch = Batch::new();
        batch.add_elements(&table, "s", set.elements.iter());
        let (messages, _) = batch.finish();
        let (mut rest, mut seen) = (messages.as_bytes(), 0);
        while !rest.is_empty() {
            let len = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            assert!(len < 1 << 16);
            let list = attribute(&rest[20..len], 3).unwrap_or(&[]);
            seen += crate::netlink::attributes(list).count();
            rest = &rest[len..];
        }
        assert_eq!(seen, 5000);
        assert!(batch.size().0 > 1);
    }

    #[test]
    fn a_change_is_only_the_difference_and_names_its_objects() {
        let mut old = Table::new(Family::Ip, "t");
        old.sets.insert("m".into(), Set::new(vec![Type::Mark], ValueType::Verdict));
        old.chains.insert("a".into(), Chain::default());
        let goto = |chain: &str| Value::Verdict(Verdict::Goto(chain.into()));
        old.sets.get_mut("m").unwrap().elements.insert(Key::default().mark(1).build(), goto("a"));
        let mut new = old.clone();
        let mut batch = Batch::new();
        new.change_from(&old, &mut batch);
        assert!(batch.is_empty());

        new.chains.clear();
        new.chains.insert("b".into(), Chain { base: None, rules: vec![vec![Expr::Masquerade]] });
        new.sets.get_mut("m").unwrap().elements.insert(Key::default().mark(1).build(), goto("b"));
        new.change_from(&old, &mut batch);
        assert_eq!(
            batch.objects,
            [
                "chain ip t b",
                "chain ip t b: rule masq",
                "deletion of elements of set ip t m",
                "elements of set ip t m",
                "rules of chain ip t a",
                "deletion of chain ip t a",
            ]
        );
        assert_eq!((batch.object(2), batch.object(1)), ("chain ip t b", "the batch"));
    }
}
