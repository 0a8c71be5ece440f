-- SPDX-License-Identifier: Apache-2.0
-- Input for the SQLite workload: inserts, indexes, joins, groups, text, updates and deletes.
PRAGMA cache_size = 20000;
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, city INTEGER, born INTEGER);
CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE note (person INTEGER, body TEXT, weight REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
  INSERT INTO city SELECT i, 'city ' || i FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
  INSERT INTO person SELECT i, 'name ' || ((i * 7919) % 100003), (i * 31) % 500 + 1, 1900 + i % 120 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150000)
  INSERT INTO note SELECT (i * 13) % 100000 + 1, hex(i) || ' ' || upper('text of note ' || i), i / 7.0 FROM n;
CREATE INDEX person_name ON person (name);
CREATE INDEX note_person ON note (person);
SELECT city.name, count(*), avg(born) FROM person JOIN city ON city.id = person.city
  GROUP BY city.id ORDER BY count(*) DESC, city.name LIMIT 10;
SELECT person.name, group_concat(substr(note.body, 1, 12)), round(sum(note.weight), 3)
  FROM person JOIN note ON note.person = person.id WHERE person.born < 1930
  GROUP BY person.id ORDER BY sum(note.weight) DESC, person.id LIMIT 20;
SELECT count(DISTINCT replace(lower(body), 'note', 'x')), sum(length(body)) FROM note;
UPDATE person SET name = name || ' (' || born || ')' WHERE id % 3 = 0;
DELETE FROM note WHERE person IN (SELECT id FROM person WHERE city % 5 = 0);
SELECT count(*), max(length(name)), min(name) FROM person;
SELECT count(*), round(sum(weight), 2) FROM note;
SELECT p.name, (SELECT count(*) FROM note WHERE note.person = p.id) AS notes
  FROM person AS p ORDER BY notes DESC, p.name LIMIT 5;
