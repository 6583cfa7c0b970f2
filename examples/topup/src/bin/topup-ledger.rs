//! Accounts, cards and vouchers.

use std::process::ExitCode;

use lexopt::ValueExt as _;
use topup::args;
use topup::card::{CardError, IssuerKeys, Layout};
use topup::ledger::{AddAccount, AddCard, AddVoucher, Ledger, ReadBooks, fingerprint};
use topup::show::{money, parse_uid};

const HELP: &str = "\
Keeps accounts, cards and vouchers in the books of the top-up server.

Usage: topup-ledger [--books URL] COMMAND

Commands:
  account NAME          a new account; prints its token, once
  card ACCOUNT UID      registers a card (14 hexadecimal digits) for an account
  issue ACCOUNT UID FILE
                        makes a software card with the demonstration keys, keeps it in FILE, and
                        registers it
  voucher ACCOUNT CENTS a new voucher for an account; prints its code, once
  books                 what was issued, what is on cards, what waits for its card

Options:
  --books URL           as for topup-server [topup.sqlite]
  --help                this text
";

async fn run(books: &str, words: &[String]) -> Result<(), CardError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let uid = |text| parse_uid(text).ok_or("a UID is 14 hexadecimal digits");
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
            std::fs::write(file, card.save())?;
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
        _ => return Err("which command? Try --help.".into()),
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut books = "topup.sqlite".to_owned();
    let mut words = Vec::new();
    let parsed = args::parse(HELP, |name, parser, word| {
        match (name, word) {
            (Some("books"), _) => books = parser.value()?.string()?,
            (None, Some(word)) => words.push(word),
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
    args::exit(runtime.block_on(run(&books, &words)))
}
