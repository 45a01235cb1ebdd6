/* loading.c - see loading.h. */
#include "common/loading.h"

#include "common/progress.h"

#define BYTES_OF_UNIT 1e6

static const char *const stage_names[] = {
    [QWEN3_STAGE_VERIFY] = "Verifying", [QWEN3_STAGE_LOAD] = "Loading", [QWEN3_STAGE_PACK] = "Packing"};

/* A line for each stage; context is a progress. */
static void show(void *context, qwen3_stage stage, uint64_t done, uint64_t total)
{
    progress *line = context;
    if (line->what != stage_names[stage]) {
        progress_end(line);
        *line = progress_begin(stage_names[stage], "MB", (double)total / BYTES_OF_UNIT);
    }
    progress_update(line, (double)done / BYTES_OF_UNIT);
}

static qwen3_model_options with_line(const qwen3_model_options *options, const qwen3_comm *comm, progress *line)
{
    qwen3_model_options shown = *options;
    *line = (progress){.what = ""};
    shown.progress = qwen3_comm_rank(comm) == 0 ? show : NULL;
    shown.progress_context = line;
    return shown;
}

qwen3_status load_model(qwen3_comm *comm, const char *spec, const qwen3_model_options *options, qwen3_model **model,
                        qwen3_error *err)
{
    progress line;
    const qwen3_model_options shown = with_line(options, comm, &line);
    const qwen3_status status = qwen3_model_open(comm, spec, &shown, model, err);
    progress_end(&line);
    return status;
}

qwen3_status convert_model(qwen3_comm *comm, const char *spec, const qwen3_model_options *options, const char *output,
                           qwen3_error *err)
{
    progress line;
    const qwen3_model_options shown = with_line(options, comm, &line);
    const qwen3_status status = qwen3_model_pack(comm, spec, &shown, output, err);
    progress_end(&line);
    return status;
}
