-- Store messages, once for each id and each key; answers the places, from 1, of those that another job stands for.
-- Each statement in here sees what was committed until then: so an id that ends at this very moment is not stored again.
-- Its commit waits for the disk if p_flush says so; that holds for all of these functions.
CREATE FUNCTION {publish_1}(
    p_flush boolean, p_now bigint, p_ids text[], p_queues text[], p_priorities int[], p_dues bigint[], p_expires bigint[],
    p_keys text[], p_key_ttls float8[], p_tasks text[], p_bodies bytea[]
) RETURNS TABLE (place int, holder text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    stored text[];
    taken int[] := '{{}}';
    finished text[];
    found_holder text;
    one record;
BEGIN
    IF NOT p_flush THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    IF cardinality(array_remove(p_keys, NULL)) > 0 THEN
        FOR one IN
            SELECT u.id, u.key, u.place::int AS place
            FROM unnest(p_ids, p_keys) WITH ORDINALITY AS u(id, key, place)
            WHERE u.key IS NOT NULL
            ORDER BY u.place
        LOOP
            CONTINUE WHEN EXISTS (SELECT 1 FROM {jobs} WHERE id = one.id)
                OR EXISTS (SELECT 1 FROM {results} WHERE id = one.id AND final = 1)
                OR EXISTS (SELECT 1 FROM {done} WHERE id = one.id)
                OR EXISTS (SELECT 1 FROM {dead_letters} WHERE id = one.id);
            INSERT INTO {keys} AS k (key, job, until) VALUES (one.key, one.id, NULL)
            ON CONFLICT (key) DO UPDATE SET job = excluded.job, until = NULL WHERE k.until <= p_now;
            SELECT job INTO found_holder FROM {keys} WHERE key = one.key;
            IF found_holder <> one.id THEN
                taken := taken || one.place;
                place := one.place;
                holder := found_holder;
                RETURN NEXT;
            END IF;
        END LOOP;
    END IF;
    WITH put AS (
        INSERT INTO {jobs} (id, queue, state, priority, due, expires, key, key_ttl, task, body)
        SELECT u.id, u.queue, CASE WHEN u.due > p_now THEN 1 ELSE 0 END, u.priority,
            CASE WHEN u.due = 0 THEN p_now ELSE u.due END, u.expires, u.key, u.key_ttl, u.task, u.body
        FROM unnest(p_ids, p_queues, p_priorities, p_dues, p_expires, p_keys, p_key_ttls, p_tasks, p_bodies)
            WITH ORDINALITY AS u(id, queue, priority, due, expires, key, key_ttl, task, body, place)
        WHERE u.place <> ALL (taken)
        ORDER BY u.place
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    )
    SELECT array_agg(put.id) INTO stored FROM put;
    finished := ARRAY(
        SELECT s.id FROM unnest(stored) AS s(id)
        WHERE (SELECT true FROM {results} r WHERE r.id = s.id AND r.final = 1)
            OR (SELECT true FROM {done} d WHERE d.id = s.id)
            OR (SELECT true FROM {dead_letters} l WHERE l.id = s.id)
    );
    IF cardinality(finished) > 0 THEN
        DELETE FROM {jobs} WHERE id = ANY (finished);
        DELETE FROM {keys} k USING unnest(p_ids, p_keys) AS u(id, key)
        WHERE u.id = ANY (finished) AND k.key = u.key AND k.job = u.id AND k.until IS NULL;
    END IF;
END $$
