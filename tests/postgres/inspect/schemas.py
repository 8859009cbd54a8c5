"""Tables of rounds as people have them, and what `stream-relay backend init` proposes for each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

TABLES: Final = Path(__file__).parents[1] / "tables"


class Schema(NamedTuple):
    """The SQL of some tables, and the options that are proposed for those with rounds."""

    sql: str
    tables: tuple[Mapping[str, Any], ...]


def _file(name: str) -> str:
    """Read one of the tables; without its own transactions, since the tests roll everything back."""
    text = next(TABLES.glob(f"{name}-*.sql")).read_text("utf-8")
    return text.replace("BEGIN;\n", "").replace("COMMIT;\n", "")


_WIDE: Final = ", ".join(f"c{number} text" for number in range(200))
_OTHERS: Final = "".join(
    f"CREATE TABLE {name}_{number} (id bigserial PRIMARY KEY, user_id bigint, amount numeric, status text, "
    "created_at timestamptz DEFAULT now(), updated_at timestamptz, data jsonb);"
    for number in range(6)
    for name in ("accounts", "wallets", "payments", "sessions", "bets", "audit_log", "settings", "promotions")
)

SCHEMAS: Final[Mapping[str, Schema]] = {
    "finished by update, state is an enum": Schema(
        _file("1"),
        (
            {
                "table": "public.crash_rounds",
                "round_id_column": "id",
                "game_slug": "crash",
                "finished_at_column": "ended_at",
                "finished_when": "state = 'finished'",
                "voided_when": "state = 'aborted'",
                "extras_columns": ["point=multiplier"],
            },
        ),
    ),
    "game is a foreign key, result in columns": Schema(
        _file("2"),
        (
            {
                "table": "public.results",
                "round_id_column": "round_no",
                "game_slug_column": "game_id",
                "game_slug_table": "public.games",
                "game_slug_table_key_column": "id",
                "game_slug_table_slug_column": "code",
                "game_slug_spelling": "dashed",
                "finished_at_column": "finished",
                "extras_columns": ["point", "color", "number", "trend"],
            },
        ),
    ),
    "a table for each game": Schema(
        _file("3"),
        (
            {
                "table": "gaming.dice",
                "round_id_column": "id",
                "game_slug": "dice",
                "finished_at_column": "done_at",
                "extras_columns": ["roll"],
            },
            {
                "table": "gaming.plinko",
                "round_id_column": "id",
                "game_slug": "plinko",
                "finished_at_column": "done_at",
                "extras_columns": ["point=payout", "path"],
            },
        ),
    ),
    "corrected and voided": Schema(
        _file("5"),
        (
            {
                "table": "public.rounds",
                "round_id_column": "round_id",
                "game_slug_column": "game_slug",
                "finished_at_column": "finished_at",
                "finished_by": "update",
                "voided_when": "voided",
                "extras_column": "extras",
            },
        ),
    ),
    "inherited children": Schema(
        _file("6"),
        (
            {
                "table": "public.rounds",
                "round_id_column": "round_id",
                "game_slug_column": "game_slug",
                "finished_at_column": "finished_at",
                "extras_column": "extras",
            },
        ),
    ),
    "an outbox with events of others": Schema(
        """CREATE TABLE outbox (
               id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregate text NOT NULL, type text NOT NULL,
               payload jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now()
           );
           INSERT INTO outbox (aggregate, type, payload) VALUES
           ('crash', 'RoundStarted', '{"round": {"no": 501}, "at": "2026-01-18T10:00:29Z"}'),
           ('crash', 'RoundFinished',
            '{"round": {"no": 501, "result": {"point": 3.14}}, "at": "2026-01-18T10:00:30Z"}'),
           ('wallet', 'Paid', '{"amount": 10}');""",
        (
            {
                "table": "public.outbox",
                "round_id_column": "payload.round.no",
                "game_slug_column": "aggregate",
                "finished_at_column": "payload.at",
                "rows_when": "type = 'RoundFinished'",
                "finished_by": "insert",
                "extras_column": "payload.round.result",
            },
        ),
    ),
    "Spanish names, a smallint state, bets beside": Schema(
        """CREATE TABLE juegos (id_juego serial PRIMARY KEY, nombre text NOT NULL);
           INSERT INTO juegos (nombre) VALUES ('Crash'), ('Double'), ('Pipa Brazil');
           CREATE TABLE rondas (
               id_ronda bigserial PRIMARY KEY, juego_id int REFERENCES juegos, estado smallint NOT NULL DEFAULT 0,
               multiplicador numeric(10,2), inicio timestamptz DEFAULT now(), fin timestamptz
           );
           INSERT INTO rondas (juego_id, estado, multiplicador, fin)
           SELECT 1 + n % 3, 2, n, now() FROM generate_series(1, 9) n;
           INSERT INTO rondas (juego_id) VALUES (1);
           CREATE TABLE apuestas (
               id bigserial PRIMARY KEY, id_ronda bigint REFERENCES rondas, usuario_id bigint, monto numeric,
               creado timestamptz DEFAULT now()
           );""",
        (
            {
                "table": "public.rondas",
                "round_id_column": "id_ronda",
                "game_slug_column": "juego_id",
                "game_slug_table": "public.juegos",
                "game_slug_table_key_column": "id_juego",
                "game_slug_table_slug_column": "nombre",
                "game_slug_spelling": "dashed",
                "finished_at_column": "fin",
                "finished_by": "update",
                "extras_columns": ["point=multiplicador"],
            },
        ),
    ),
    "is_finished, and the time in milliseconds": Schema(
        """CREATE TABLE rounds (
               id bigint PRIMARY KEY, game varchar(32) NOT NULL, is_finished boolean NOT NULL DEFAULT false,
               finished_ms bigint, result jsonb
           );
           INSERT INTO rounds
           SELECT n, 'crash', true, 1768730430000 + n, '{"point": 2.50}' FROM generate_series(1, 3) n;
           INSERT INTO rounds VALUES (4, 'crash');""",
        (
            {
                "table": "public.rounds",
                "round_id_column": "id",
                "game_slug_column": "game",
                "finished_at_column": "finished_ms",
                "finished_when": "is_finished",
                "extras_column": "result",
            },
        ),
    ),
    "camel case, char(n)": Schema(
        """CREATE TABLE "GameRounds" (
               "roundId" bigint PRIMARY KEY, "gameCode" char(16) NOT NULL, "crashPoint" numeric,
               "createdAt" timestamp NOT NULL DEFAULT now(), "updatedAt" timestamp, "finishedAt" timestamp,
               "serverSeed" text
           );
           INSERT INTO "GameRounds" SELECT n, 'aviador', 1.5, now(), now(), now(), 'x' FROM generate_series(1, 5) n;
           CREATE TABLE "Users" (id bigint PRIMARY KEY, email text, "createdAt" timestamptz DEFAULT now());""",
        (
            {
                "table": "public.GameRounds",
                "round_id_column": "roundId",
                "game_slug_column": "gameCode",
                "finished_at_column": "finishedAt",
                "finished_by": "update",
                "extras_columns": ["point=crashPoint"],
            },
        ),
    ),
    "uuid ids with an integer beside, cents": Schema(
        """CREATE TABLE rounds (
               id uuid PRIMARY KEY DEFAULT gen_random_uuid(), seq bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
               game text NOT NULL, status text NOT NULL CHECK (status IN ('open', 'closed', 'cancelled')),
               payout_cents int, color text, closed_at timestamptz
           );
           INSERT INTO rounds (game, status, payout_cents, closed_at) VALUES
           ('dice', 'closed', 250, now()), ('double', 'open', NULL, NULL);""",
        (
            {
                "table": "public.rounds",
                "round_id_column": "seq",
                "game_slug_column": "game",
                "finished_at_column": "closed_at",
                "finished_when": "status = 'closed'",
                "voided_when": "status = 'cancelled'",
                "extras_columns": ["point=payout_cents/100", "color"],
            },
        ),
    ),
    "uuid ids alone": Schema(
        """CREATE TABLE rounds (
               id uuid PRIMARY KEY DEFAULT gen_random_uuid(), game_slug text NOT NULL, ended boolean NOT NULL,
               multiplier double precision, created_at timestamptz DEFAULT now(), ended_at timestamptz
           );
           INSERT INTO rounds (game_slug, ended, multiplier, ended_at) VALUES
           ('dice', true, 2.5, now()), ('crash', false, NULL, NULL);""",
        (
            {
                "table": "public.rounds",
                "round_id_column": "id",
                "round_ids": "hashed",
                "game_slug_column": "game_slug",
                "finished_at_column": "ended_at",
                "finished_when": "ended",
                "extras_columns": ["point=multiplier"],
            },
        ),
    ),
    "the usual table, empty": Schema(
        """CREATE TABLE rounds (
               round_id bigint PRIMARY KEY, game_slug text NOT NULL, game_type text, finished_at timestamptz,
               extras jsonb
           );""",
        (
            {
                "table": "public.rounds",
                "round_id_column": "round_id",
                "game_slug_column": "game_slug",
                "finished_at_column": "finished_at",
                "finished_by": "update",
                "extras_column": "extras",
            },
        ),
    ),
    "partitioned": Schema(
        """CREATE TABLE rounds (
               round_id bigint GENERATED ALWAYS AS IDENTITY, game_slug text NOT NULL,
               finished_at timestamptz NOT NULL DEFAULT now(), extras jsonb, PRIMARY KEY (round_id, finished_at)
           ) PARTITION BY RANGE (finished_at);
           CREATE TABLE rounds_p1 PARTITION OF rounds FOR VALUES FROM ('2020-01-01') TO ('2050-01-01');
           INSERT INTO rounds (game_slug, extras) VALUES ('plinko', '{"point": "1.1"}');""",
        (
            {
                "table": "public.rounds",
                "round_id_column": "round_id",
                "game_slug_column": "game_slug",
                "finished_at_column": "finished_at",
                "extras_column": "extras",
                "order_column": "round_id",
            },
        ),
    ),
    "200 columns": Schema(
        f"CREATE TABLE round_history (id bigserial PRIMARY KEY, game_name text NOT NULL, result numeric, {_WIDE}, "  # noqa: S608
        "played_at timestamptz NOT NULL DEFAULT now());"
        "INSERT INTO round_history (game_name, result) VALUES ('Wall Street', 1.20);",
        (
            {
                "table": "public.round_history",
                "round_id_column": "id",
                "game_slug_column": "game_name",
                "game_slug_spelling": "dashed",
                "finished_at_column": "played_at",
                "extras_columns": ["point=result"],
            },
        ),
    ),
    "Portuguese enum": Schema(
        """CREATE TYPE situacao AS ENUM ('APOSTANDO', 'RODANDO', 'ENCERRADA', 'CANCELADA');
           CREATE TABLE rodadas (
               codigo bigint PRIMARY KEY, jogo varchar(40) NOT NULL, situacao situacao NOT NULL, resultado jsonb,
               aberta_em timestamptz DEFAULT now(), encerrada_em timestamptz
           );
           INSERT INTO rodadas VALUES (1, 'MOTOGRAU_V2', 'ENCERRADA', '{"point": "2.1"}', now(), now());""",
        (
            {
                "table": "public.rodadas",
                "round_id_column": "codigo",
                "game_slug_column": "jogo",
                "game_slug_spelling": "dashed",
                "finished_at_column": "encerrada_em",
                "finished_when": "situacao = 'ENCERRADA'",
                "voided_when": "situacao = 'CANCELADA'",
                "extras_column": "resultado",
            },
        ),
    ),
    "fifty tables, two of them with rounds": Schema(
        f"""{_OTHERS}
             CREATE TABLE crash_games (
                 id bigserial PRIMARY KEY, bust numeric, hash text, started_at timestamptz DEFAULT now(),
                 ended_at timestamptz
             );
             CREATE TABLE double_spins (
                 id bigserial PRIMARY KEY, number int, color text, spun_at timestamptz NOT NULL DEFAULT now()
             );
             INSERT INTO crash_games (bust, ended_at) VALUES (1.5, now());
             INSERT INTO payments_0 (user_id, amount, status) VALUES (1, 2, 'completed');""",  # noqa: S608
        (
            {
                "table": "public.double_spins",
                "round_id_column": "id",
                "game_slug": "double",
                "finished_at_column": "spun_at",
                "extras_columns": ["number", "color"],
            },
            {
                "table": "public.crash_games",
                "round_id_column": "id",
                "game_slug": "crash",
                "finished_at_column": "ended_at",
                "finished_by": "update",
                "extras_columns": ["point=bust"],
            },
        ),
    ),
    "the result says that a round is finished": Schema(
        """CREATE TABLE crash_rounds (
               id bigserial PRIMARY KEY, created_at timestamptz NOT NULL DEFAULT now(),
               updated_at timestamptz NOT NULL DEFAULT now(), crash_point numeric
           );
           INSERT INTO crash_rounds (crash_point) VALUES (2.5), (NULL);""",
        (
            {
                "table": "public.crash_rounds",
                "round_id_column": "id",
                "game_slug": "crash",
                "finished_at_column": "created_at",
                "finished_when": "crash_point is not null",
                "extras_columns": ["point=crash_point"],
            },
        ),
    ),
    "names that need quotes": Schema(
        """CREATE TABLE "Ronda de Juego" (
               "Nº" bigint PRIMARY KEY, "Juego.Slug" text NOT NULL, "Estado Final" text NOT NULL,
               "Multiplicador, final" numeric, "Fecha de Fin" timestamptz NOT NULL
           );
           INSERT INTO "Ronda de Juego" VALUES
           (1, 'crash', 'Terminado', 2.5, now()), (2, 'crash', 'Abierto', 1, now());""",
        (
            {
                "table": "public.Ronda de Juego",
                "round_id_column": "Nº",
                "game_slug_column": "Juego.Slug",
                "finished_at_column": "Fecha de Fin",
                "finished_when": "\"Estado Final\" = 'Terminado'",
                "extras_columns": ['point="Multiplicador, final"'],
            },
        ),
    ),
}
