-- Runs once, when the database is first made: one database each, since both keep a history of their own migrations.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
