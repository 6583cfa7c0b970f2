//! Accounts, cards and vouchers.

use std::io::Write as _;
use std::process::ExitCode;

use desfire_ev1::purse::{INTENT_LEN, Intent};
use lexopt::ValueExt as _;
use topup::args;
use topup::card::{CardError, IssuerKeys, Layout};
use topup::ledger::{
    AddAccount, AddCard, AddVoucher, Ledger, ListWaiting, ReadBooks, ReadTrail, fingerprint,
};
use topup::service::{self, Grounds};
use topup::show::{bytes_from_hex, moment, money, parse_uid};

const HELP: &str = "\
Keeps accounts, cards and vouchers in the books of the top-up server.

Usage: topup-ledger [--books URL] COMMAND

Commands:
  account NAME          a new account; prints its token, once
  card ACCOUNT UID      registers a card (14 hexadecimal digits) for an account
  issue ACCOUNT UID FILE
                        makes a software card with the demonstration keys, keeps it in FILE, which
                        must not be there yet, and registers it
  voucher ACCOUNT CENTS a new voucher for an account; prints its code, once
  books                 what was issued, what is on cards, what waits for its card

For the service desk:
  waiting               the top-ups whose end is unknown: they block voucher and card until the next
                        tap of the card, or until somebody settles them
  settle NUMBER --seen INTENT
                        settles one by what another terminal saw: its intent, in hexadecimal
                        digits, that names the record of this number as the one before it
  settle NUMBER credited
                        as the one who is named decides, if a tap has shown that the card cannot tell
  settle NUMBER released
                        only if the tap has shown half a credit, the record without the amount
  settle NUMBER credited --without-card
                        if there is no card to tap: it is taken to have the amount
  trail                 what was settled by hand, by whom, why, and on what grounds

Options:
  --books URL           as for topup-server [topup.sqlite]
  --by NAME             who settles
  --because TEXT        why
  --help                this text
";

#[derive(Default)]
struct Options {
    books: Option<String>,
    words: Vec<String>,
    seen: Option<String>,
    without_card: bool,
    by: String,
    because: String,
}

/// What a settlement rests on, from the words after its number.
fn grounds(options: &Options, decision: &[&str]) -> Result<Grounds, CardError> {
    Ok(match (decision, &options.seen, options.without_card) {
        ([], Some(seen), false) => {
            let bytes: [u8; INTENT_LEN] =
                bytes_from_hex(seen).ok_or_else(|| format!("an intent is {INTENT_LEN} bytes"))?;
            Grounds::Seen(Box::new(Intent::from_bytes(&bytes)?))
        }
        (["credited"], None, true) => Grounds::WithoutCard,
        (["credited"], None, false) => Grounds::Tapped { credited: true },
        (["released"], None, false) => Grounds::Tapped { credited: false },
        (["released"], None, true) => {
            let text = "without the card nothing is released: settle it as credited, and help with another voucher";
            return Err(text.into());
        }
        _ => return Err("settle it how? Try --help.".into()),
    })
}

async fn run(options: &Options) -> Result<(), CardError> {
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    let uid = |text| parse_uid(text).ok_or("a UID is 14 hexadecimal digits");
    let books = options.books.as_deref().unwrap_or("topup.sqlite");
    let ledger = Ledger::open(books).await?;
    match *words.as_slice() {
        ["account", name] => {
            let token = args::secret()?;
            let account = AddAccount {
                name: name.to_owned(),
                token: fingerprint(token.as_bytes()),
            };
            ledger.perform(account).await?;
            println!("{token}");
        }
        ["card", account, number] => {
            let card = AddCard {
                uid: uid(number)?,
                account: account.to_owned(),
            };
            ledger.perform(card).await?;
        }
        ["issue", account, number, file] => {
            let uid = uid(number)?;
            let card = IssuerKeys::for_demonstration().issue(&Layout::new()?, uid, 0)?;
            // Never over another card: that one is money.
            let mut new = std::fs::File::create_new(file)
                .map_err(|error| format!("cannot make {file}: {error}"))?;
            new.write_all(&card.save())?;
            let account = account.to_owned();
            ledger.perform(AddCard { uid, account }).await?;
        }
        ["voucher", account, cents] => {
            let amount = cents.parse().ok().filter(|amount| *amount > 0);
            let code = args::secret()?;
            let voucher = AddVoucher {
                code: fingerprint(code.as_bytes()),
                account: account.to_owned(),
                amount: amount.ok_or("an amount is a number of cents above 0")?,
            };
            ledger.perform(voucher).await?;
            println!("{code}");
        }
        ["books"] => {
            let books = ledger.perform(ReadBooks).await?;
            let cents =
                |sum: i64| i32::try_from(sum).map_or_else(|_| format!("{sum} cents"), money);
            println!(
                "issued    {:>6} vouchers {:>14}",
                books.vouchers,
                cents(books.issued)
            );
            println!(
                "on cards  {:>6} vouchers {:>14}",
                books.spent,
                cents(books.credited)
            );
            println!(
                "waiting   {:>6} vouchers {:>14}",
                books.waiting,
                cents(books.reserved)
            );
        }
        ["waiting"] => {
            for waiting in ledger.perform(ListWaiting).await? {
                let number = Intent::from_bytes(&waiting.intent);
                let number = number.map_or(0, |intent| intent.record().sequence.get());
                println!(
                    "{} record {number} of card {} of {}, {}, begun {}: {}",
                    waiting.tx,
                    waiting.uid,
                    waiting.account,
                    money(waiting.amount),
                    moment(waiting.begun),
                    waiting
                        .found
                        .map_or("tap the card".to_owned(), |found| found.said),
                );
            }
        }
        ["settle", number, ref decision @ ..] => {
            let tx = number.parse().map_err(|_| "which top-up? See waiting.")?;
            let grounds = grounds(options, decision)?;
            let (by, because) = (&options.by, &options.because);
            let credited = service::settle(&ledger, tx, &grounds, by, because).await?;
            println!(
                "{tx} is settled: {}",
                if credited {
                    "the card has it"
                } else {
                    "the card does not have it, the voucher is good again"
                }
            );
        }
        ["trail"] => {
            for trace in ledger.perform(ReadTrail).await? {
                println!(
                    "{} {} card {}, {}, {} by {:?} because {:?}; grounds: {}",
                    moment(trace.at),
                    trace.tx,
                    trace.uid,
                    money(trace.amount),
                    if trace.credited {
                        "credited"
                    } else {
                        "released"
                    },
                    trace.who,
                    trace.why,
                    trace.grounds,
                );
            }
        }
        _ => return Err("which command? Try --help.".into()),
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut options = Options::default();
    let parsed = args::parse(HELP, |name, parser, word| {
        match (name, word) {
            (Some("books"), _) => options.books = Some(parser.value()?.string()?),
            (Some("seen"), _) => options.seen = Some(parser.value()?.string()?),
            (Some("without-card"), _) => options.without_card = true,
            (Some("by"), _) => options.by = parser.value()?.string()?,
            (Some("because"), _) => options.because = parser.value()?.string()?,
            (None, Some(word)) => options.words.push(word),
            _ => return Ok(false),
        }
        Ok(true)
    });
    if let Err(code) = parsed {
        return code;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return args::exit(Err(error.into())),
    };
    args::exit(runtime.block_on(run(&options)))
}
