//! The command line.

use std::path::PathBuf;

use lexopt::prelude::*;

pub const HELP: &str = "\
Issues a batch of DESFire EV1 cards from a layout, and goes on with what was torn.

  issue --layout FILE KEYS CARDS [OPTIONS]
  issue new-keys --layout FILE OUT     make random keys for a layout, sealed into OUT
  issue seal IN OUT                    seal a key file with a password
  issue list-keys FILE                 names, versions and types of the keys in a sealed file

Keys
  --keys FILE          a sealed key file (age, made by 'issue seal' or by 'age -p -a')
                       The password is asked for, or taken from ISSUE_PASSWORD.
  --demo-keys          keys made at random and forgotten at the end, for trying it out
  without either       from the environment: DESFIRE_KEY_<NAME>_V<VERSION>=TYPE:HEX, with the
                       name in capitals and _ for all that is no letter or digit

Cards
  --box N              N software cards, fresh from the factory
  --dir DIR            keep the box's cards in DIR from run to run
  --tear               pull some of them off the reader at the worst moment
  --once               do not put torn cards back on the reader in this run
  --strange            every seventh card is somebody else's
  --seed N             another run of bad luck
  --reader [NAME]      cards on the PC/SC reader whose name contains NAME, one after the other
                       (built with --features pcsc)
  --count N            stop after N cards on the reader

What to do
  --dry-run            only look and say what would be done
  --plan               show every card's plan (with --dry-run)
  --rollover           only replace keys by those of the layout's generation
  --irreversible       do what can never be undone, too: frozen settings, random ID, FormatPICC
                       disabled; otherwise these are held back
  --report BASE        write BASE.json and BASE.csv
  --help               this text

The exit code is 0 if all cards are as they should be, 1 if not, 2 for a wrong command line.
";

/// What is wanted.
#[derive(Debug)]
pub enum Order {
    Help,
    Invent { layout: PathBuf, output: PathBuf },
    Seal { input: PathBuf, output: PathBuf },
    List { input: PathBuf },
    Batch(Box<Batch>),
}

/// Where keys come from.
#[derive(Debug)]
pub enum Keys {
    File(PathBuf),
    Demo,
    Environment,
}

/// Where cards come from.
#[derive(Debug)]
pub enum Cards {
    Box {
        count: u32,
    },
    Reader {
        name: Option<String>,
        count: Option<u32>,
    },
}

#[derive(Debug)]
pub struct Batch {
    pub layout: PathBuf,
    pub keys: Keys,
    pub cards: Cards,
    pub folder: Option<PathBuf>,
    pub tear: bool,
    pub once: bool,
    pub strange: bool,
    pub seed: u64,
    pub dry_run: bool,
    pub plan: bool,
    pub rollover: bool,
    pub irreversible: bool,
    pub report: Option<PathBuf>,
}

#[derive(Default)]
struct Given {
    help: bool,
    words: Vec<String>,
    layout: Option<PathBuf>,
    keys: Option<PathBuf>,
    demo: bool,
    count_in_box: Option<u32>,
    reader: Option<Option<String>>,
    count: Option<u32>,
    folder: Option<PathBuf>,
    tear: bool,
    once: bool,
    strange: bool,
    seed: Option<u64>,
    dry_run: bool,
    plan: bool,
    rollover: bool,
    irreversible: bool,
    report: Option<PathBuf>,
}

pub fn parse(mut parser: lexopt::Parser) -> Result<Order, lexopt::Error> {
    let mut given = Given::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => given.help = true,
            Long("layout") => given.layout = Some(parser.value()?.into()),
            Long("keys") => given.keys = Some(parser.value()?.into()),
            Long("demo-keys") => given.demo = true,
            Long("box") => given.count_in_box = Some(parser.value()?.parse()?),
            Long("dir") => given.folder = Some(parser.value()?.into()),
            Long("tear") => given.tear = true,
            Long("once") => given.once = true,
            Long("strange") => given.strange = true,
            Long("seed") => given.seed = Some(parser.value()?.parse()?),
            Long("reader") => {
                let name = parser.optional_value();
                let name = match name {
                    Some(name) => Some(name.string()?),
                    None => parser
                        .values()
                        .ok()
                        .and_then(|mut values| values.next())
                        .map(|name| name.string())
                        .transpose()?,
                };
                given.reader = Some(name);
            }
            Long("count") => given.count = Some(parser.value()?.parse()?),
            Long("dry-run") => given.dry_run = true,
            Long("plan") => given.plan = true,
            Long("rollover") => given.rollover = true,
            Long("irreversible") => given.irreversible = true,
            Long("report") => given.report = Some(parser.value()?.into()),
            Value(word) => given.words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    if given.help {
        return Ok(Order::Help);
    }
    given.order()
}

impl Given {
    fn order(self) -> Result<Order, lexopt::Error> {
        let layout = || self.layout.clone().ok_or("which layout? --layout FILE");
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => {}
            ["new-keys", output] => {
                return Ok(Order::Invent {
                    layout: layout()?,
                    output: output.into(),
                });
            }
            ["seal", input, output] => {
                return Ok(Order::Seal {
                    input: input.into(),
                    output: output.into(),
                });
            }
            ["list-keys", input] => {
                return Ok(Order::List {
                    input: input.into(),
                });
            }
            [word, ..] => {
                return Err(
                    format!("'{word}' is no command, or has the wrong number of files").into(),
                );
            }
        }
        let cards = match (self.count_in_box, self.reader) {
            (Some(count), None) => Cards::Box { count },
            (None, Some(name)) => Cards::Reader {
                name,
                count: self.count,
            },
            (Some(_), Some(_)) => return Err("either --box or --reader".into()),
            (None, None) => return Err("which cards? --box N or --reader".into()),
        };
        if matches!(cards, Cards::Reader { .. })
            && (self.tear || self.strange || self.folder.is_some() || self.once)
        {
            return Err("--tear, --once, --strange and --dir are for software cards".into());
        }
        if self.plan && !self.dry_run {
            return Err("--plan goes with --dry-run".into());
        }
        Ok(Order::Batch(Box::new(Batch {
            layout: self.layout.ok_or("which layout? --layout FILE")?,
            keys: match (self.keys, self.demo) {
                (Some(_), true) => return Err("either --keys or --demo-keys".into()),
                (Some(path), false) => Keys::File(path),
                (None, true) => Keys::Demo,
                (None, false) => Keys::Environment,
            },
            cards,
            folder: self.folder,
            tear: self.tear,
            once: self.once,
            strange: self.strange,
            seed: self.seed.unwrap_or(1),
            dry_run: self.dry_run,
            plan: self.plan,
            rollover: self.rollover,
            irreversible: self.irreversible,
            report: self.report,
        })))
    }
}
