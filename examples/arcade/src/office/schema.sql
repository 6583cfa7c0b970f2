-- Who has which card.
CREATE TABLE purse (
    id     INTEGER PRIMARY KEY,
    uid    TEXT NOT NULL UNIQUE,
    holder TEXT NOT NULL
);

-- What stands where, and until when it has delivered everything.
CREATE TABLE terminal (
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL,
    kind   TEXT NOT NULL,    -- of the operations that it makes
    metres INTEGER NOT NULL, -- from the door
    until  INTEGER NOT NULL
);

-- Records that were on cards.
CREATE TABLE record (
    purse    INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    amount   INTEGER NOT NULL,
    balance  INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    terminal INTEGER NOT NULL,
    trans    INTEGER NOT NULL,
    UNIQUE (purse, sequence, kind, amount, balance, time, terminal, trans)
);

-- Operations that terminals have tried.
CREATE TABLE intent (
    purse    INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    amount   INTEGER NOT NULL,
    balance  INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    terminal INTEGER NOT NULL,
    trans    INTEGER NOT NULL,
    PRIMARY KEY (terminal, trans)
);
CREATE INDEX intent_of_purse ON intent (purse, sequence);

-- What the terminals have found out about them.
CREATE TABLE settlement (
    terminal INTEGER NOT NULL,
    trans    INTEGER NOT NULL,
    paid     INTEGER NOT NULL,
    PRIMARY KEY (terminal, trans)
);

-- Every time a purse was opened: the newest record then.
CREATE TABLE tap (
    purse    INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    terminal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (purse, time, terminal, sequence)
);

-- Cards that a terminal has refused as false.
CREATE TABLE suspicion (
    uid      TEXT NOT NULL,
    time     INTEGER NOT NULL,
    terminal INTEGER NOT NULL,
    why      TEXT NOT NULL,
    certain  INTEGER NOT NULL,
    original TEXT,           -- UID of the card that it is a copy of
    PRIMARY KEY (uid, time, terminal, why)
);

-- What is known of every operation: 1 paid, 0 not paid, NULL open.
CREATE VIEW operation AS
SELECT intent.*,
    CASE
        WHEN EXISTS (SELECT 1 FROM record WHERE record.purse = intent.purse
                AND record.sequence = intent.sequence AND record.kind = intent.kind
                AND record.amount = intent.amount AND record.balance = intent.balance
                AND record.time = intent.time AND record.terminal = intent.terminal
                AND record.trans = intent.trans)
            THEN 1
        WHEN settlement.paid IS NOT NULL THEN settlement.paid
        WHEN EXISTS (SELECT 1 FROM record WHERE record.purse = intent.purse
                AND record.sequence = intent.sequence)
            THEN 0
        WHEN EXISTS (SELECT 1 FROM tap WHERE tap.purse = intent.purse
                AND tap.sequence < intent.sequence AND tap.time > intent.time + 10) -- as far as the clocks may be apart
            THEN 0
    END AS paid
FROM intent LEFT JOIN settlement USING (terminal, trans);

-- The books of every purse.
CREATE VIEW book AS
SELECT purse.id, purse.holder,
    coalesce(sum(operation.amount) FILTER (WHERE operation.kind = 'credit' AND paid), 0) AS money_in,
    coalesce(sum(operation.amount) FILTER (WHERE operation.kind = 'debit' AND paid), 0) AS money_out,
    count(operation.trans) FILTER (WHERE paid IS NULL) AS open
FROM purse LEFT JOIN operation ON operation.purse = purse.id
GROUP BY purse.id;

-- Every record that is proved to have been on a card: seen there, or an operation that its terminal
-- knows to be paid.
CREATE VIEW fact AS
SELECT purse, sequence, kind, amount, balance, time, terminal, trans FROM record
UNION
SELECT purse, sequence, kind, amount, balance, time, terminal, trans FROM operation WHERE paid;
