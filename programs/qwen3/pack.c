/* pack.c - qwen3 pack: a checkpoint to a packed model, which is mapped and used in place. */
#include "command.h"
#include "common/loading.h"
#include "common/model_arguments.h"
#include "common/output_file.h"
#include "common/program.h"
#include "common/thread_warning.h"

/* Collective. */
static qwen3_status pack(qwen3_comm *world, const char *spec, const qwen3_model_options *model, const char *output,
                         qwen3_error *err)
{
    output_file directory = {.name = output};
    if (qwen3_comm_rank(world) == 0)
        output_directory_begin(&directory, "--output", output, spec, err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        status = convert_model(world, spec, model, directory.name, err);
    if (status == QWEN3_OK)
        model_conversion_note(world, spec, NULL, model->dtype);
    bool agreed = status != QWEN3_OK;
    output_file_finish(&directory, status, err);
    return agreed ? status : qwen3_comm_agree(world, err);
}

qwen3_status command_pack(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    qwen3_model_options model = qwen3_model_options_default();
    char *spec = NULL, *output = NULL;
    int bind = BIND_AUTO;
    option options[] = {
        {.name = "model",
         .short_name = 'm',
         .kind = OPTION_TEXT,
         .value = &spec,
         .argument = "DIR|FILE.gguf",
         .help = "Checkpoint directory, GGUF file, or packed model to be packed for another level"},
        {.name = "dtype",
         .kind = OPTION_DTYPE,
         .value = &model.dtype,
         .help = "Type of packed weights (default bf16, or those of a GGUF file with quantised weights)"},
        {.name = "isa",
         .kind = OPTION_ISA,
         .value = &model.isa,
         .help = "Level of the kernels to pack for (default auto: the best); others repack as they load"},
        {.name = "threads",
         .short_name = 't',
         .kind = OPTION_INT,
         .value = &model.threads,
         .min = 1,
         .max = 4096,
         .help = "Threads to pack with (default: the cores)"},
        bind_option(&bind),
        {.name = "output",
         .kind = OPTION_TEXT,
         .value = &output,
         .argument = "DIR",
         .help = "New directory for the packed model, to be used as --model DIR"},
    };
    enum { OPTIONS = sizeof options / sizeof *options };
    command_line line = {"qwen3 pack", self->summary, options, OPTIONS, argc, argv};
    bool finished = false;

    if (options_parse(&line, qwen3_comm_rank(world) == 0 ? stdout : NULL, &finished, err) == QWEN3_OK && !finished) {
        if (model_spec_check(spec, "the directory of a checkpoint, or FILE.gguf", err) == QWEN3_OK && !output)
            set_error(err, QWEN3_ERR_ARGUMENT, "--output is missing, expected the name of a new directory");
    }
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && !finished)
        status = threads_settle(world, model.threads, bind, err);
    if (status == QWEN3_OK && !finished)
        status = pack(world, spec, &model, output, err);
    options_free(options, OPTIONS);
    return status;
}
