"""Looking at a database: its tables, columns and rows; which of them are rounds, and what capture of them needs."""
