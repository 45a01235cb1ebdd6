/* test_machine.c - rates of a machine: measured, written, read again, and refused. */
#include "support/temp_files.h"

#include <math.h>

static void assert_near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-5 * fabs(b)))
        fail_msg("%g is not %g", a, b);
}

static void assert_same(const qwen3_machine *a, const qwen3_machine *b)
{
    assert_int_equal(a->nodes, b->nodes);
    assert_int_equal(a->ranks_per_node, b->ranks_per_node);
    assert_int_equal(a->threads, b->threads);
    assert_int_equal(a->isa, b->isa);
    for (int type = 0; type < QWEN3_WEIGHT_TYPES; type++)
        for (int i = 0; i < QWEN3_MACHINE_ROWS; i++)
            assert_near(a->product_values[type][i], b->product_values[type][i]);
    for (int type = 0; type < QWEN3_KV_TYPES; type++) {
        assert_near(a->attention_bytes[type], b->attention_bytes[type]);
        assert_near(a->attention_flops[type][0], b->attention_flops[type][0]);
        assert_near(a->attention_flops[type][1], b->attention_flops[type][1]);
    }
    assert_near(a->row_values, b->row_values);
    assert_near(a->barrier, b->barrier);
    assert_near(a->inside.latency, b->inside.latency);
    assert_near(a->across.message, b->across.message);
    assert_near(a->across.bytes_per_second, b->across.bytes_per_second);
}

static void test_default(void **state)
{
    const temp_path path = temp_join(*state, "default.json");
    const qwen3_machine machine = qwen3_machine_default();
    qwen3_machine again;
    assert_int_equal(qwen3_machine_write(path.text, &machine, NULL), QWEN3_OK);
    assert_int_equal(qwen3_machine_read(path.text, &again, NULL), QWEN3_OK);
    assert_same(&again, &machine);
}

/* One type of weights: its rates are known, and those of its keys and values. */
static void test_measured(void **state)
{
    const temp_path path = temp_join(*state, "measured.json");
    qwen3_machine machine, again;
    qwen3_error err;
    if (qwen3_machine_measure(qwen3_comm_self(), 2, QWEN3_ISA_AUTO, QWEN3_DTYPE_Q4, &machine, &err))
        fail_msg("%s", err.message);
    assert_int_equal(machine.nodes, 1);
    assert_int_equal(machine.ranks_per_node, 1);
    assert_int_equal(machine.threads, 2);
    for (int i = 0; i < QWEN3_MACHINE_ROWS; i++)
        assert_true(machine.product_values[QWEN3_DTYPE_Q4][i] > 0);
    assert_true(machine.product_values[QWEN3_DTYPE_Q4][0] > machine.product_values[QWEN3_DTYPE_Q4][6]);
    assert_true(machine.attention_bytes[QWEN3_DTYPE_BF16] > 0 && machine.attention_flops[QWEN3_DTYPE_BF16][0] > 0);
    assert_true(machine.product_values[QWEN3_DTYPE_F32][0] == 0 && machine.attention_bytes[QWEN3_DTYPE_F32] == 0);
    assert_true(machine.row_values > 0 && machine.barrier > 0 && machine.across.latency > 0);
    assert_int_equal(qwen3_machine_write(path.text, &machine, NULL), QWEN3_OK);
    assert_int_equal(qwen3_machine_read(path.text, &again, NULL), QWEN3_OK);
    assert_same(&again, &machine);
}

/* What is known of a type need not be all: the rest is not written. */
static void test_unknown(void **state)
{
    const temp_path path = temp_join(*state, "machine.json");
    const qwen3_machine whole = qwen3_machine_default();
    for (int i = 0; i < 3; i++) {
        qwen3_machine machine = whole, again;
        double *const rates[] = {machine.product_values[QWEN3_DTYPE_F32], machine.attention_flops[QWEN3_DTYPE_Q8],
                                 &machine.attention_bytes[QWEN3_DTYPE_BF16]};
        memset(rates[i], 0, (size_t[]){QWEN3_MACHINE_ROWS, 2, 1}[i] * sizeof **rates);
        assert_int_equal(qwen3_machine_write(path.text, &machine, NULL), QWEN3_OK);
        assert_int_equal(qwen3_machine_read(path.text, &again, NULL), QWEN3_OK);
        assert_same(&again, &machine);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *word;
        qwen3_status status;
    } cases[] = {
        {"[]", "expected a JSON object", QWEN3_ERR_FORMAT},
        {"{}", "nodes is missing", QWEN3_ERR_CONFIG},
        {"{\"nodes\":1,\"ranks_per_node\":1,\"threads\":1,\"isa\":\"z80\"}", "isa: got \"z80\"", QWEN3_ERR_CONFIG},
        {"{\"nodes\":0,\"ranks_per_node\":1,\"threads\":1}", "nodes: got 0", QWEN3_ERR_CONFIG},
        {"{\"nodes\":1,\"ranks_per_node\":1,\"threads\":1,\"barrier\":1}", "row_values is missing", QWEN3_ERR_CONFIG},
        {"{\"nodes\":1,\"ranks_per_node\":1,\"threads\":1,\"barrier\":1,\"row_values\":-1}", "row_values: got -1",
         QWEN3_ERR_CONFIG},
        {"{\"nodes\":1,\"ranks_per_node\":1,\"threads\":1,\"barrier\":1,\"row_values\":1,"
         "\"product_values\":{\"q4\":[1,2]}}",
         "product_values.q4: got [1,2]", QWEN3_ERR_CONFIG},
        {"{\"nodes\":1,\"ranks_per_node\":1,\"threads\":1,\"barrier\":1,\"row_values\":1,\"across\":{\"latency\":1}}",
         "across.message is missing", QWEN3_ERR_CONFIG},
        {"{\"nodes\":1,\"ranks_per_node\":1,\"threads\":1,\"barrier\":1,\"row_values\":1,"
         "\"attention_bytes\":{\"q8\":-1}}",
         "attention_bytes.q8: got -1", QWEN3_ERR_CONFIG},
    };
    const temp_path path = temp_join(*state, "wrong.json");
    qwen3_machine machine;
    qwen3_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(path.text, cases[i].text);
        const qwen3_status status = qwen3_machine_read(path.text, &machine, &err);
        assert_refused(cases[i].text, status, cases[i].status, &err, cases[i].word, path.text);
    }
    assert_int_equal(qwen3_machine_read("/nowhere/machine.json", &machine, &err), QWEN3_ERR_IO);
    machine = qwen3_machine_default();
    assert_int_equal(qwen3_machine_write("/nowhere/machine.json", &machine, &err), QWEN3_ERR_IO);
    assert_int_equal(qwen3_machine_measure(qwen3_comm_self(), -1, QWEN3_ISA_AUTO, QWEN3_DTYPE_F32, &machine, &err),
                     QWEN3_ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_default, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(test_measured, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(test_unknown, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(test_refused, temp_dir_setup, temp_dir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
