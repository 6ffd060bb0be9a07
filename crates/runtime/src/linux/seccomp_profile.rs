//! System call filters that the node's owner wrote: the OCI runtime specification's form, as JSON, to a program.
//!
//! Rules are asked in the order of the file. Calls of other architectures than the machine's, which a profile may list
//! too, get what the profile does by default. Upstream: the OCI runtime specification's config-linux, libseccomp.

use std::io;

use seccompiler::{BpfProgram, sock_filter};
use serde::Deserialize;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ABOVE: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Offsets in `struct seccomp_data`: the number, the architecture, the arguments (8 bytes each, low half first).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
/// x32's calls, which are none of ours.
const X32: u32 = 0x4000_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
/// The longest program the kernel takes.
const PROGRAM_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The program of a profile.
///
/// # Errors
/// When the text is no profile, or asks for something unknown.
pub fn compile(text: &str) -> io::Result<BpfProgram> {
    let profile: Profile = serde_json::from_str(text).map_err(io::Error::other)?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut out = vec![
        op(LOAD, 0, 0, ARCH),
        op(JUMP_EQUAL, 1, 0, AUDIT_ARCH),
        op(RETURN, 0, 0, if profile.default_action == "SCMP_ACT_ALLOW" { default } else { KILL_PROCESS }),
        op(LOAD, 0, 0, NUMBER),
        op(JUMP_AT_LEAST, 0, 1, X32),
        op(RETURN, 0, 0, default),
    ];
    for rule in &profile.syscalls {
        let action = action(&rule.action, rule.errno_ret)?;
        let mut conditions = Vec::new();
        for argument in &rule.args {
            conditions.extend(condition(argument)?);
        }
        for name in &rule.names {
            // A name that this architecture does not have is one more that nobody calls.
            let Ok(call) = name.parse::<syscalls::Sysno>() else { continue };
            let skip = conditions.len() + 1;
            // A condition that fails jumps behind the rule's end; the numbers are counted from its own place.
            let body: Vec<sock_filter> = conditions
                .iter()
                .enumerate()
                .map(|(i, c)| fail_to(c, skip - i))
                .chain([op(RETURN, 0, 0, action)])
                .collect();
            out.push(op(LOAD, 0, 0, NUMBER));
            let length =
                u8::try_from(body.len()).map_err(|_| io::Error::other("a rule has too many arguments"))?;
            out.push(op(JUMP_EQUAL, 0, length, call.id() as u32));
            out.extend(body);
        }
    }
    out.push(op(RETURN, 0, 0, default));
    if out.len() > PROGRAM_MAX {
        return Err(io::Error::other("the profile has too many rules"));
    }
    Ok(out)
}

/// Marks a jump to where the rule has failed, until that place is known.
const FAIL: u8 = u8::MAX;

fn fail_to(instruction: &sock_filter, left: usize) -> sock_filter {
    let mut out = instruction.clone();
    let target = u8::try_from(left - 1).expect("checked with the rule's length");
    for jump in [&mut out.jt, &mut out.jf] {
        if *jump == FAIL {
            *jump = target;
        }
    }
    out
}

/// Goes on behind itself when the argument is as asked, and jumps to [`FAIL`] otherwise.
fn condition(argument: &Argument) -> io::Result<Vec<sock_filter>> {
    if argument.index > 5 {
        return Err(io::Error::other(format!("a call has no argument {}", argument.index)));
    }
    let (low_at, high_at) = (ARGUMENTS + argument.index * 8, ARGUMENTS + argument.index * 8 + 4);
    let halves = |value: u64| (value as u32, (value >> 32) as u32);
    let (low, high) = halves(argument.value);
    let load_high = op(LOAD, 0, 0, high_at);
    let load_low = op(LOAD, 0, 0, low_at);
    // Above in the high half decides; equal there asks the low half.
    let order = |low_code: u16, want: bool| {
        let (above, below) = if want { (3, FAIL) } else { (FAIL, 3) };
        let last = if want { (0, FAIL) } else { (FAIL, 0) };
        vec![
            load_high.clone(),
            op(JUMP_ABOVE, above, 0, high),
            op(JUMP_EQUAL, 0, below - u8::from(below != FAIL), high),
            load_low.clone(),
            op(low_code, last.0, last.1, low),
        ]
    };
    Ok(match argument.op.as_str() {
        "SCMP_CMP_EQ" => {
            vec![load_high, op(JUMP_EQUAL, 0, FAIL, high), load_low, op(JUMP_EQUAL, 0, FAIL, low)]
        }
        "SCMP_CMP_NE" => {
            vec![load_high, op(JUMP_EQUAL, 0, 2, high), load_low, op(JUMP_EQUAL, FAIL, 0, low)]
        }
        "SCMP_CMP_MASKED_EQ" => {
            let (mask_low, mask_high) = halves(argument.value);
            let (low, high) = halves(argument.value_two);
            vec![
                load_high,
                op(AND, 0, 0, mask_high),
                op(JUMP_EQUAL, 0, FAIL, high),
                load_low,
                op(AND, 0, 0, mask_low),
                op(JUMP_EQUAL, 0, FAIL, low),
            ]
        }
        "SCMP_CMP_GT" => order(JUMP_ABOVE, true),
        "SCMP_CMP_GE" => order(JUMP_AT_LEAST, true),
        "SCMP_CMP_LE" => order(JUMP_ABOVE, false),
        "SCMP_CMP_LT" => order(JUMP_AT_LEAST, false),
        other => return Err(io::Error::other(format!("unknown comparison {other:?}"))),
    })
}

/// What the kernel does. Source: linux/seccomp.h.
fn action(name: &str, errno: Option<u16>) -> io::Result<u32> {
    let data = u32::from(errno.unwrap_or(libc::EPERM as u16));
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | data,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | data,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        other => return Err(io::Error::other(format!("unknown action {other:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program says of a call, by a small machine of its own.
    fn ask(program: &BpfProgram, arch: u32, number: u32, arguments: [u64; 2]) -> u32 {
        let load = |at: u32| match at {
            NUMBER => number,
            ARCH => arch,
            at => (arguments[(at - ARGUMENTS) as usize / 8] >> (8 * ((at - ARGUMENTS) % 8))) as u32,
        };
        let (mut at, mut a) = (0, 0);
        loop {
            let i = &program[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
            match i.code {
                LOAD => a = load(i.k),
                AND => a &= i.k,
                JUMP_EQUAL => at += jump(a == i.k),
                JUMP_ABOVE => at += jump(a > i.k),
                JUMP_AT_LEAST => at += jump(a >= i.k),
                RETURN => return i.k,
                other => panic!("no code {other:#x}"),
            }
        }
    }

    #[test]
    fn profiles_decide_as_written() {
        let rule = |args: &str| {
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],"syscalls":[
                {{"names":["read","nosuchcall"],"action":"SCMP_ACT_ALLOW"}},
                {{"names":["write"],"action":"SCMP_ACT_LOG","args":[{args}]}},
                {{"names":["write"],"action":"SCMP_ACT_ERRNO","errnoRet":5}}]}}"#
            )
        };
        let (read, write) = (libc::SYS_read as u32, libc::SYS_write as u32);
        let plain = compile(&rule("")).expect("a profile");
        assert_eq!(ask(&plain, AUDIT_ARCH, read, [0, 0]), 0x7fff_0000);
        assert_eq!(ask(&plain, AUDIT_ARCH, libc::SYS_close as u32, [0, 0]), 0x0005_0026);
        assert_eq!(ask(&plain, AUDIT_ARCH, read | X32, [0, 0]), 0x0005_0026);
        assert_eq!(ask(&plain, 3, read, [0, 0]), KILL_PROCESS);
        let big = 5 << 32;
        for (op, value, two, fit, unfit) in [
            ("EQ", big + 1, 0, vec![big + 1], vec![big, 1]),
            ("NE", big + 1, 0, vec![big, 1], vec![big + 1]),
            ("GT", big + 1, 0, vec![big + 2, 6 << 32], vec![big + 1, big, 9]),
            ("GE", big + 1, 0, vec![big + 1, 6 << 32], vec![big, 9]),
            ("LT", big + 1, 0, vec![big, 9], vec![big + 1, 6 << 32]),
            ("LE", big + 1, 0, vec![big + 1, big, 9], vec![big + 2, 6 << 32]),
            ("MASKED_EQ", big + 1, big, vec![big, big + 2], vec![big + 1, 0]),
        ] {
            let text = format!(
                r#"{{"index":0,"value":7,"op":"SCMP_CMP_EQ"}},{{"index":1,"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}"#
            );
            let program = compile(&rule(&text)).expect("a profile");
            for (values, want) in [(fit, 0x7ffc_0000), (unfit, 0x0005_0005)] {
                for value in values {
                    assert_eq!(ask(&program, AUDIT_ARCH, write, [7, value]), want, "{op} {value:#x}");
                    assert_eq!(ask(&program, AUDIT_ARCH, write, [8, value]), 0x0005_0005);
                }
            }
        }
        assert!(compile("{}").is_err());
        assert!(compile(&rule(r#"{"index":0,"value":1,"op":"SCMP_CMP_XX"}"#)).is_err());
    }
}
