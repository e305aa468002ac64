BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'uniform');
INSERT INTO "studies" VALUES(2,'uniform (retrained)');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MINIMIZE',1,1);
INSERT INTO "study_directions" VALUES(3,'MAXIMIZE',2,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'secateur','{"format": "3", "weights": "df072b7b1e33e339", "graph": "4f7fd83f1a3a", "data": "bd658701cee08a22", "budget": "{\"macs\": [\"45%..60%\"]}", "space": "{\"criterion\": \"l2\", \"features\": \"fan_in\", \"kind\": \"hybrid\", \"limits\": {\"divisor\": 1, \"max_rate\": 0.9, \"min_channels\": 1}, \"linkage\": \"average\", \"reduction\": \"sum\", \"removal\": null}", "scorer": "region_kernel, 32 images", "sampler": "tpe", "seed": "0"}');
INSERT INTO "study_user_attributes" VALUES(2,1,'versions','{"torch": "2.13.0+cpu", "optuna": "5.0.0", "numpy": "2.4.6", "scipy": "1.17.1", "scikit-learn": "1.9.1"}');
INSERT INTO "study_user_attributes" VALUES(3,1,'outline','{"id": "4f7fd83f1a3a", "groups": [["stem.0", 8], ["block.0", 12], ["wide.0", 16]], "dense": {"macs": 188976, "params": 3119, "latency": null, "memory": null}, "scorer": "region_kernel", "caps": [113385]}');
INSERT INTO "study_user_attributes" VALUES(4,2,'worker 0','{}');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'rule','"uniform"');
INSERT INTO "trial_user_attributes" VALUES(2,1,'target','0');
INSERT INTO "trial_user_attributes" VALUES(3,1,'structure','"eefae33ce1ae"');
INSERT INTO "trial_user_attributes" VALUES(4,1,'kept','"7e9fdffe90"');
INSERT INTO "trial_user_attributes" VALUES(5,1,'macs','110631');
INSERT INTO "trial_user_attributes" VALUES(6,1,'params','1860');
INSERT INTO "trial_user_attributes" VALUES(7,1,'seconds','0.009129301000029955');
INSERT INTO "trial_user_attributes" VALUES(8,2,'structure','"eefae33ce1ae"');
INSERT INTO "trial_user_attributes" VALUES(9,2,'trial','0');
INSERT INTO "trial_user_attributes" VALUES(10,2,'recipe','"{\"augment\": null, \"batch_size\": 32, \"channels_last\": true, \"clip\": 0.0, \"distill\": 0.9, \"ema\": 0.0, \"epochs\": 1, \"flow\": \"one-shot\", \"label_smoothing\": 0.0, \"lr\": 0.1, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"precision\": \"auto\", \"recalibrate\": 20, \"schedule\": \"cosine\", \"seed\": 0, \"slim\": 0.0, \"slim_layers\": {}, \"steps\": 1, \"temperature\": 2.0, \"warmup\": null, \"weight_decay\": 0.0005}"');
INSERT INTO "trial_user_attributes" VALUES(11,2,'claim','"947e10e27cd7/887162279625"');
INSERT INTO "trial_user_attributes" VALUES(12,2,'accuracy','0.6666666666666666');
INSERT INTO "trial_user_attributes" VALUES(13,2,'test_accuracy','0.6666666666666666');
INSERT INTO "trial_user_attributes" VALUES(14,2,'recalibrated_accuracy','0.6666666666666666');
INSERT INTO "trial_user_attributes" VALUES(15,2,'seconds','0.04975821300001826');
INSERT INTO "trial_user_attributes" VALUES(16,2,'wall_seconds','0.14134504700007255');
INSERT INTO "trial_user_attributes" VALUES(17,2,'artefact','"@HERE@/runs/compared/compare/uniform/retrain/eefae33ce1ae-b83bd4/network.safetensors"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,9.83740567985012637208e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,1,1,110631.0,'FINITE');
INSERT INTO "trial_values" VALUES(3,2,0,6.66666666666666629659e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-26 06:56:31.740696','2026-11-26 06:56:31.740696');
INSERT INTO "trials" VALUES(2,0,2,'COMPLETE','2026-11-26 06:56:31.921288','2026-11-26 06:56:32.145898');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
