"""Tabu search on the disjunctive graph of a job shop, compiled with numba.

Nodes. Node 0 and the gaps between the jobs are *sentinels* (length 0, no machine); the operations of a job are
consecutive, so the job predecessor of node ``v`` is always ``v - 1`` and its job successor ``v + 1``: no index is read.
A release or a time lag is a node without a machine. Machine predecessors and successors are ``machine_before[v]`` and
``machine_after[v]`` (0: none), ``order`` is a topological order of the real nodes and ``position`` its inverse (-1 at
sentinels). Indices are unsigned, which spares numba's test for negative ones.

``head_end[v]`` is the length of the longest path from the source through ``v`` (its earliest end) and ``tail[v]`` the
longest path from the START of ``v`` to the sink: ``v`` is critical when ``head_end[v] - length[v] + tail[v]`` is the
makespan.

Sources: Nowicki and Smutnicki (1996) for N5, Balas and Vazacopoulos (1998) for the moves to a block's ends and their
approximate evaluation, Zhang et al. (2007, 2008) for N7 and the tenure.
"""

from __future__ import annotations

import numba
import numpy as np

ONE = np.uint64(1)
NONE = np.uint64(0)

# positions in the `counters` array
ITERATION, MAKESPAN, BEST, EXHAUSTED = range(4)
N_COUNTERS = 4


@numba.njit(cache=True, nogil=True)
def random_below(random_state, n):
    """An integer in 0..n-1 (xorshift64*), n < 2**31."""
    x = random_state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    random_state[0] = x
    return np.int64((((x * np.uint64(2685821657736338717)) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@numba.njit(cache=True, nogil=True)
def lrpt_order(job_first, job_last, length, machine, n_machines):
    """Chronological non-delay schedule by the rule LRPT (longest work after the next operation; ties: first job).

    ``job_first[j]..job_last[j]`` are the nodes of job j. Returns the nodes in order of dispatch, a topological order.
    """
    n_jobs = len(job_first)
    order = np.empty(np.sum(job_last - job_first + 1), np.uint32)
    following = job_first.copy()
    ready = np.zeros(n_jobs, np.int64)
    work_after = np.zeros(n_jobs, np.int64)
    free = np.zeros(n_machines + 1, np.int64)
    for j in range(n_jobs):
        for v in range(job_first[j] + 1, job_last[j] + 1):
            work_after[j] += length[v]
    for k in range(len(order)):
        now = np.int64(2**62)
        chosen = -1
        for j in range(n_jobs):
            v = following[j]
            if v > job_last[j]:
                continue
            start = ready[j]
            if machine[v] >= 0 and free[machine[v]] > start:
                start = free[machine[v]]
            if start < now or (start == now and work_after[j] > work_after[chosen]):
                now = start
                chosen = j
        v = following[chosen]
        order[k] = v
        ready[chosen] = now + length[v]
        if machine[v] >= 0:
            free[machine[v]] = ready[chosen]
        following[chosen] += 1
        if following[chosen] <= job_last[chosen]:
            work_after[chosen] -= length[following[chosen]]
    return order


@numba.njit(cache=True, nogil=True)
def link(order, machine, n_machines, position, machine_before, machine_after):
    """Fill the positions and the machine neighbours that a topological ``order`` implies."""
    last = np.zeros(n_machines, np.uint32)
    machine_before[:] = 0
    machine_after[:] = 0
    for k in range(len(order)):
        v = order[k]
        position[v] = k
        if machine[v] >= 0:
            before = last[machine[v]]
            machine_before[v] = before
            if before != 0:
                machine_after[before] = v
            last[machine[v]] = v


@numba.njit(cache=True, nogil=True)
def longest_heads(order, first, length, machine_before, head_end):
    """Recompute ``head_end`` from position ``first`` on; all nodes before it are right."""
    for k in range(np.uint64(first), np.uint64(len(order))):
        v = np.uint64(order[k])
        by_job = head_end[v - ONE]
        by_machine = head_end[machine_before[v]]
        head_end[v] = max(by_job, by_machine) + length[v]


@numba.njit(cache=True, nogil=True)
def longest_tails(order, last, length, machine_after, tail):
    """Recompute ``tail`` from position ``last`` down; all nodes behind it are right."""
    for i in range(np.uint64(last + 1)):
        v = np.uint64(order[np.uint64(last) - i])
        by_job = tail[v + ONE]
        by_machine = tail[machine_after[v]]
        tail[v] = max(by_job, by_machine) + length[v]


@numba.njit(cache=True, nogil=True)
def critical_blocks(job_last, makespan, length, machine_before, head_end, random_state, path, block_first):
    """A random critical path, first node first, in ``path``; ``block_first[b]`` is where its b-th block begins.

    A block is a maximal run of machine neighbours. Returns the number of blocks (``block_first`` has one entry more).
    """
    count = 0
    v = NONE
    for j in range(len(job_last)):
        if head_end[job_last[j]] == makespan:
            count += 1
            if random_below(random_state, count) == 0:
                v = np.uint64(job_last[j])
    n = len(path)
    k = n
    while v != NONE:
        k -= 1
        path[k] = v
        start = head_end[v] - length[v]
        if start == 0:
            break  # what lies before has length 0 and cannot shorten the path
        before = np.uint64(machine_before[v])
        by_machine = before != NONE and head_end[before] == start
        by_job = head_end[v - ONE] == start
        if by_machine and by_job:
            by_machine = random_below(random_state, 2) == 0
        v = before if by_machine else v - ONE
    size = n - k
    for i in range(size):
        path[i] = path[k + i]
    blocks = 0
    for i in range(size):
        if i == 0 or machine_before[path[i]] != path[i - 1]:
            block_first[blocks] = i
            blocks += 1
    block_first[blocks] = size
    return blocks


@numba.njit(cache=True, nogil=True)
def stays_acyclic_forward(u, v, length, head_end, tail, position):
    """True when moving ``u`` right behind ``v`` (same machine, u before v) provably closes no cycle.

    The move closes one only if a path leads from the job successor of ``u`` to ``v``; heads, tails and positions rule
    that out (any one of the three suffices; sentinels have no paths). All are computed: branches would cost more.
    """
    s = u + ONE
    return (s != v) & (
        (position[s] < 0)
        | (position[s] > position[v])
        | (head_end[v] - length[v] < head_end[s])
        | (tail[s] < length[s] + tail[v])
    )


@numba.njit(cache=True, nogil=True)
def stays_acyclic_backward(u, v, length, head_end, tail, position):
    """True when moving ``v`` right before ``u`` (same machine, u before v) provably closes no cycle."""
    s = v - ONE
    return (s != u) & (
        (position[s] < position[u]) | (head_end[s] - length[s] < head_end[u]) | (tail[u] < length[u] + tail[s])
    )


@numba.njit(cache=True, nogil=True)
def estimate_forward(path, i, j, limit, length, machine_before, machine_after, head_end, tail, scratch):
    """Longest path through the moved nodes if ``path[i]`` goes right behind ``path[j]``; gives up above ``limit``.

    Nodes of a block follow each other without idle time, which gives a first bound without a walk along the block.
    """
    u, v, second = np.uint64(path[i]), np.uint64(path[j]), np.uint64(path[i + 1])
    end = head_end[machine_before[u]]
    rest = max(tail[u + ONE], tail[machine_after[v]]) + length[u]
    quickest = max(max(end, head_end[second - ONE]) + head_end[v] - head_end[u], head_end[v - ONE] + length[v])
    worst = max(quickest, head_end[u - ONE]) + rest
    if worst > limit:
        return worst
    for k in range(i + 1, j + 1):
        w = np.uint64(path[k])
        end = max(end, head_end[w - ONE]) + length[w]
        scratch[k] = end
    worst = max(end, head_end[u - ONE]) + rest
    for k in range(j, i, -1):
        if worst > limit:
            return worst
        w = np.uint64(path[k])
        rest = max(rest, tail[w + ONE])
        worst = max(worst, scratch[k] + rest)
        rest += length[w]
    return worst


@numba.njit(cache=True, nogil=True)
def estimate_backward(path, i, j, limit, length, machine_before, machine_after, head_end, tail, scratch):
    """Longest path through the moved nodes if ``path[j]`` goes right before ``path[i]``; gives up above ``limit``.

    The mirror image of :func:`estimate_forward`.
    """
    u, v, second = np.uint64(path[i]), np.uint64(path[j]), np.uint64(path[j - 1])
    rest = tail[machine_after[v]]
    end = max(head_end[machine_before[u]], head_end[v - ONE]) + length[v]
    block = (head_end[v] - length[v]) - (head_end[u] - length[u])
    quickest = max(max(rest, tail[second + ONE]) + block, tail[u + ONE] + length[u])
    worst = end + max(quickest, tail[v + ONE])
    if worst > limit:
        return worst
    for k in range(j - 1, i - 1, -1):
        w = np.uint64(path[k])
        rest = max(rest, tail[w + ONE]) + length[w]
        scratch[k] = rest
    worst = end + max(rest, tail[v + ONE])
    for k in range(i, j):
        if worst > limit:
            return worst
        w = np.uint64(path[k])
        end = max(end, head_end[w - ONE])
        worst = max(worst, end + scratch[k])
        end += length[w]
    return worst


@numba.njit(cache=True, nogil=True)
def move_forward(u, v, order, position, machine_before, machine_after, mark, stamp, buffer):
    """Put ``u`` right behind ``v`` on their machine; repair the order between their positions. Returns that window."""
    before, after, second = machine_before[u], machine_after[v], machine_after[u]
    machine_after[before] = second
    machine_before[second] = before
    machine_after[v] = u
    machine_before[u] = v
    machine_after[u] = after
    machine_before[after] = u
    low, high = position[u], position[v]
    mark[u] = stamp
    buffer[0] = u
    size = 1
    to = np.uint64(low)
    for k in range(np.uint64(low + 1), np.uint64(high + 1)):
        w = np.uint64(order[k])
        if mark[w - ONE] == stamp or mark[machine_before[w]] == stamp:
            mark[w] = stamp
            buffer[size] = w
            size += 1
        else:
            order[to] = w
            position[w] = to
            to += ONE
    for i in range(size):
        w = np.uint64(buffer[i])
        order[to] = w
        position[w] = to
        to += ONE
    return low, high


@numba.njit(cache=True, nogil=True)
def move_backward(u, v, order, position, machine_before, machine_after, mark, stamp, buffer):
    """Put ``v`` right before ``u`` on their machine; repair the order between their positions. Returns that window."""
    before, after, last = machine_before[u], machine_after[v], machine_before[v]
    machine_before[after] = last
    machine_after[last] = after
    machine_before[u] = v
    machine_after[v] = u
    machine_before[v] = before
    machine_after[before] = v
    low, high = position[u], position[v]
    mark[v] = stamp
    buffer[0] = v
    size = 1
    to = np.uint64(high)
    for i in range(high - low):
        w = np.uint64(order[np.uint64(high - 1 - i)])
        if mark[w + ONE] == stamp or mark[machine_after[w]] == stamp:
            mark[w] = stamp
            buffer[size] = w
            size += 1
        else:
            order[to] = w
            position[w] = to
            to -= ONE
    for i in range(size):
        w = np.uint64(buffer[i])
        order[to] = w
        position[w] = to
        to -= ONE
    return low, high


@numba.njit(cache=True, nogil=True)
def add_move(i, j, forward, moves, count, path, length, head_end, tail, position):
    """Append the move to ``moves`` if it provably closes no cycle; returns the new count."""
    u, v = np.uint64(path[i]), np.uint64(path[j])
    if forward:
        acyclic = stays_acyclic_forward(u, v, length, head_end, tail, position)
    else:
        acyclic = stays_acyclic_backward(u, v, length, head_end, tail, position)
    moves[count, 0] = i
    moves[count, 1] = j
    moves[count, 2] = forward
    return count + acyclic


@numba.njit(cache=True, nogil=True)
def list_moves(n7, blocks, block_first, moves, path, length, head_end, tail, position):
    """Write the neighbourhood of a critical path to ``moves``; returns how many.

    A row (i, j, 1) moves ``path[i]`` right behind ``path[j]``, (i, j, 0) moves ``path[j]`` right before ``path[i]``.
    Nothing before the end of the first block or behind the front of the last block can shorten the path at once, so
    moves to the front of the first block and to the end of the last one are left out. N7: any node to the end or to
    the front of its block, the last and the first node to any place in it. N5: the two nodes at either end swap.
    """
    count = 0
    for b in range(blocks):
        first, last = block_first[b], block_first[b + 1] - 1
        if first == last:
            continue
        has_end, has_front = b < blocks - 1, b > 0
        if has_end:
            for i in range(first if n7 else last - 1, last):
                count = add_move(i, last, True, moves, count, path, length, head_end, tail, position)
            if n7:
                for i in range(first + 1 if has_front else first, last - 1):
                    count = add_move(i, last, False, moves, count, path, length, head_end, tail, position)
        if has_front:
            if n7:
                for j in range(first + 1, last if has_end else last + 1):
                    count = add_move(first, j, True, moves, count, path, length, head_end, tail, position)
                for j in range(first + 2, last + 1):
                    count = add_move(first, j, False, moves, count, path, length, head_end, tail, position)
            elif not has_end or last > first + 1:
                count = add_move(first, first + 1, True, moves, count, path, length, head_end, tail, position)
    return count


@numba.njit(cache=True, nogil=True)
def is_tabu(i, j, forward, path, slot, forbidden, iteration):
    """True when the move restores an order of two nodes that is still forbidden."""
    if forward:
        column = slot[path[i]]
        for k in range(i + 1, j + 1):
            if forbidden[path[k], column] >= iteration:
                return True
    else:
        row = path[j]
        for k in range(i, j):
            if forbidden[row, slot[path[k]]] >= iteration:
                return True
    return False


@numba.njit(cache=True, nogil=True)
def choose_move(
    moves, count, best, iteration,
    path, slot, forbidden, length, machine_before, machine_after, head_end, tail, scratch, random_state,
):  # fmt: skip
    """Row of the move with the shortest estimate that is not tabu, or would beat ``best``; any row if all are tabu."""
    chosen, shortest, ties = -1, np.int64(2**62), 0
    for row in range(count):
        i, j, forward = moves[row, 0], moves[row, 1], moves[row, 2] == 1
        if forward:
            estimate = estimate_forward(
                path, i, j, shortest, length, machine_before, machine_after, head_end, tail, scratch
            )
        else:
            estimate = estimate_backward(
                path, i, j, shortest, length, machine_before, machine_after, head_end, tail, scratch
            )
        if estimate > shortest:
            continue
        if estimate >= best and is_tabu(i, j, forward, path, slot, forbidden, iteration):
            continue
        if estimate < shortest:
            ties = 1
        else:
            ties += 1
            if random_below(random_state, ties) != 0:
                continue
        chosen, shortest = row, estimate
    return chosen if chosen >= 0 else random_below(random_state, count)


@numba.njit(cache=True, nogil=True)
def search(
    iterations, target, n7, tenure_low, tenure_high,
    job_last, length, slot,
    order, position, machine_before, machine_after, head_end, tail,
    forbidden, mark, path, block_first, moves, scratch, buffer, best_order, random_state, counters,
):  # fmt: skip
    """Make up to ``iterations`` moves; stops early at a makespan of ``target`` or when there is no move.

    After a move of ``u`` past ``v`` their old order is forbidden for a random number of moves in
    ``tenure_low..tenure_high``; only this outermost pair, not the pairs between (forbidding all of them is worse).
    All arrays are the state of the search and are changed in place; ``best_order`` is the order of the best schedule.
    """
    iteration, best, makespan = counters[ITERATION], counters[BEST], counters[MAKESPAN]
    stop = iteration + iterations
    while iteration < stop and best > target:
        blocks = critical_blocks(job_last, makespan, length, machine_before, head_end, random_state, path, block_first)
        count = list_moves(n7, blocks, block_first, moves, path, length, head_end, tail, position)
        if count == 0:
            counters[EXHAUSTED] = 1
            break
        iteration += 1
        row = choose_move(
            moves, count, best, iteration,
            path, slot, forbidden, length, machine_before, machine_after, head_end, tail, scratch, random_state,
        )  # fmt: skip
        u, v = np.uint64(path[moves[row, 0]]), np.uint64(path[moves[row, 1]])
        forbidden[u, slot[v]] = iteration + tenure_low + random_below(random_state, tenure_high - tenure_low + 1)
        if moves[row, 2] == 1:
            low, high = move_forward(u, v, order, position, machine_before, machine_after, mark, iteration, buffer)
        else:
            low, high = move_backward(u, v, order, position, machine_before, machine_after, mark, iteration, buffer)
        longest_heads(order, low, length, machine_before, head_end)
        longest_tails(order, high, length, machine_after, tail)
        makespan = 0
        for j in range(len(job_last)):
            makespan = max(makespan, head_end[job_last[j]])
        if makespan < best:
            best = makespan
            best_order[:] = order
    counters[ITERATION], counters[BEST], counters[MAKESPAN] = iteration, best, makespan
